"""Entropic transport that need not move all mass (Chizat et al., arXiv 1607.05816)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# What is left of the potentials' first error.
REMAINDER = 1e-9
MOST_SCALINGS = 2_000


def unbalanced_plan(cost: Tensor, epsilon: float, mass_penalty: float) -> Tensor:
    """The plan between masses of one a row and one a column.

    min over P ≥ 0 of ⟨P, C⟩ + ε·KL(P ‖ 1) + m·KL(P1 ‖ 1) + m·KL(Pᵀ1 ‖ 1), in the log domain.
    Each scaling takes the error of the potentials down by m/(m + ε), so their number is known
    before. `MOST_SCALINGS` bounds it: from m/ε ≈ 190 on the plan's mass may not have settled, while
    its shares, which change fastest, have.

    Args:
        cost: [n, m], not negative.
        epsilon: ε.
        mass_penalty: m; the larger, the closer the marginals are to one.

    Returns:
        [n, m].
    """
    kept = mass_penalty / (mass_penalty + epsilon)
    scalings = min(MOST_SCALINGS, math.ceil(math.log(REMAINDER) / (2 * math.log(kept))))
    scaled = -cost / epsilon
    f, g = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[0])
    for _ in range(scalings):
        f = -kept * torch.logsumexp(scaled + g, dim=1)
        g = -kept * torch.logsumexp(scaled + f[:, None], dim=0)
    return (scaled + f[:, None] + g).exp()
