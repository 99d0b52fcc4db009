"""95 % intervals: every number comes with its count and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean, over the values as independent units.

    Raises:
        ValueError: there are no values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        raise ValueError("an interval needs at least one value")
    rng = np.random.default_rng(seed)
    means = [sample[rng.integers(0, len(sample), len(sample))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summarise(key: str, values: Sequence[float]) -> dict[str, float]:
    """`key` with its mean, `key/count`, `key/low` and `key/high`; nothing for no values."""
    if not len(values):
        return {}
    low, high = bootstrap_interval(values)
    return {
        key: float(np.mean(values)),
        f"{key}/count": float(len(values)),
        f"{key}/low": low,
        f"{key}/high": high,
    }
