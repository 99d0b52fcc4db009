"""Who says whether an answer is harmful, good or right."""
