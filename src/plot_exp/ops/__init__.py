"""The hot path: hidden states to token log-probabilities and token distributions."""
