"""Finished runs in, tables and figures out; only the files of a run directory are read."""
