"""Train, evaluate, report, export: each reads from top to bottom as a recipe."""
