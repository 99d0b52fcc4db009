"""The processes of one run: which one this is, how they start, wait for one another and end."""
