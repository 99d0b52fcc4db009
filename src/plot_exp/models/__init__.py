"""The policy, the reference in its forms, and where their weights come from."""
