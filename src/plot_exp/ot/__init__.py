"""Optimal transport on a vocabulary: pure tensor functions and the geometry of the cost."""
