"""A finished run as others get it: the model card, and the hub."""
