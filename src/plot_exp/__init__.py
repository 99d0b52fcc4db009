"""Preference learning by optimal transport: train, compare and judge preference objectives."""

__version__ = "0.1.0"
