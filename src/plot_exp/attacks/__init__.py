"""Red-team attacks: a behaviour and a model in, test cases out."""
