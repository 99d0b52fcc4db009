"""The embedded demo preference set: written by a small grammar from a seed, no external text."""

from plot_exp.data.demo.generator import CATEGORIES, generate

__all__ = ["CATEGORIES", "generate"]
