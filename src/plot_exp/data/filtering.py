"""Keeps the share of a data set with the lowest or the highest reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Kept = Literal["lowest", "highest"]


def kept_indices(rewards: Sequence[float], share: float, keeps: Kept) -> list[int]:
    """Which examples stay, in their own order.

    Args:
        rewards: one finite number an example.
        share: in (0, 1]; rounded up, so that at least one example stays.
        keeps: `lowest` or `highest` rewards; of equal ones the first stay.

    Raises:
        ValueError: the share is out of range, or a reward is not finite.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share to keep must be in (0, 1], not {share:g}")
    for index, reward in enumerate(rewards):
        if not math.isfinite(reward):
            raise ValueError(f"the reward of example {index} is {reward:g}")
    sign = 1 if keeps == "lowest" else -1
    order = sorted(range(len(rewards)), key=lambda index: (sign * rewards[index], index))
    # The product of a share such as 0.05 may lie a rounding error above a whole number.
    count = math.ceil(round(share * len(rewards), 9))
    return sorted(order[:count])
