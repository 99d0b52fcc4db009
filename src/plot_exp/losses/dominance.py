"""First-order stochastic dominance of one sample over another (AOT, arXiv 2406.05882).

A dominates B where no quantile of A lies below B's. With samples of one size the quantiles are
the order statistics.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Relaxation = Literal["logistic", "squared_hinge", "least_squares"]


def quantile_differences(better: Tensor, worse: Tensor) -> Tensor:
    """F⁻¹_better − F⁻¹_worse at max(n, m) evenly spaced levels, ascending.

    Args:
        better: sample [n].
        worse: sample [m].

    Returns:
        [max(n, m)]; empty where one of the samples is.
    """
    if not len(better) or not len(worse):
        return torch.cat([better, worse])[:0]
    count = max(len(better), len(worse))
    return quantiles(better, count) - quantiles(worse, count)


def quantiles(sample: Tensor, count: int) -> Tensor:
    """Order statistics, interpolated linearly where `count` differs from their number.

    Args:
        sample: [n], 1 ≤ n.
        count: number of levels k/(count − 1), k = 0 … count − 1; at least n.

    Returns:
        [count], ascending; the sorted sample itself for count = n.
    """
    ordered = sample.sort().values
    if count == len(sample):
        return ordered
    # In whole numbers, so that levels which fall on an order statistic give it exactly.
    steps = torch.arange(count, device=sample.device) * (len(sample) - 1)
    low = steps // (count - 1)
    share = (steps % (count - 1)).to(sample.dtype) / (count - 1)
    high = (low + 1).clamp_max(len(sample) - 1)
    return torch.lerp(ordered[low], ordered[high], share)


def relaxed_violation(difference: Tensor, beta: float, relaxation: Relaxation) -> Tensor:
    """h(x) for each difference of quantiles x, a smooth stand-in for 1[x < 0].

    `logistic` log(1 + e^(−βx)), `squared_hinge` (β − x)₊², `least_squares` (β − x)².
    """
    if relaxation == "logistic":
        return F.softplus(-beta * difference)
    if relaxation == "squared_hinge":
        return (beta - difference).clamp_min(0).square()
    return (beta - difference).square()


def violated_share(better: Tensor, worse: Tensor) -> Tensor:
    """Share of quantiles at which `better` lies strictly below `worse`; 0 for empty samples."""
    difference = quantile_differences(better.detach(), worse.detach())
    return (difference < 0).sum() / max(len(difference), 1)
