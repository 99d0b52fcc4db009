"""Prompts in, completions out: a model in this process, or one behind an endpoint."""
