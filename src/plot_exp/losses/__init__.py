"""One file an objective: a small module on log-probabilities; `composite.py` adds them."""
