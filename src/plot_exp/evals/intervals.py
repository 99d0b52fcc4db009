"""95 % intervals: every number comes with its count and its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
DRAWN_AT_ONCE = 1_000_000
NORMAL_QUANTILE = 1.959964  # of 97.5 %


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean, over the values as independent units.

    Raises:
        ValueError: there are no values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        raise ValueError("an interval needs at least one value")
    rng = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    rows = max(1, DRAWN_AT_ONCE // len(sample))
    for start in range(0, RESAMPLES, rows):
        size = (min(rows, RESAMPLES - start), len(sample))
        means.append(sample[rng.integers(0, len(sample), size)].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """The Wilson score interval of a rate (Wilson 1927).

    Unlike the bootstrap's it does not shrink to a point where all of a few cases agree.

    Raises:
        ValueError: there are no cases.
    """
    if count < 1:
        raise ValueError("an interval needs at least one value")
    squared = NORMAL_QUANTILE**2
    rate = successes / count
    middle = (rate + squared / (2 * count)) / (1 + squared / count)
    spread = rate * (1 - rate) / count + squared / (4 * count**2)
    half = NORMAL_QUANTILE / (1 + squared / count) * math.sqrt(spread)
    # At the ends both bounds are exact; subtraction would leave them a rounding error away.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == count else min(1.0, middle + half)


def summarise(key: str, values: Sequence[float], *, rate: bool) -> dict[str, float]:
    """`key` with its mean, `key/count`, `key/low` and `key/high`; nothing for no values.

    Args:
        rate: the values are yes or no (ties ½); the interval is then Wilson's where every value
            is 0 or 1, and the bootstrap's otherwise.
    """
    if not len(values):
        return {}
    if rate and set(values) <= {0.0, 1.0}:
        low, high = wilson_interval(sum(values), len(values))
    else:
        low, high = bootstrap_interval(values)
    return {
        key: float(np.mean(values)),
        f"{key}/count": float(len(values)),
        f"{key}/low": low,
        f"{key}/high": high,
    }
