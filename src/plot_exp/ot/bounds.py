"""Exact transport between two bounds, without a solver that is slow or has to be installed.

The dual objective of feasible potentials lies below the exact value, the cost of a feasible plan
above it; both come from one entropic solution with small ε.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plot_exp.ot.scaling import coarse_potential, feasible_plan, refine, transforms


@dataclass(frozen=True)
class Bounds:
    """A plan and potentials for masses `a` [n] and `b` [m].

    Attributes:
        lower: the dual objective.
        upper: ⟨plan, cost⟩.
        plan: [n, m], its rows sum to `a` and its columns to `b`.
        f: potential [n], f_i + g_j ≤ C_ij.
        g: potential [m].
    """

    lower: float
    upper: float
    plan: Tensor
    f: Tensor
    g: Tensor

    @property
    def gap(self) -> float:
        """How far the bounds are apart, relative to the upper one."""
        return (self.upper - self.lower) / self.upper if self.upper > 0 else 0.0


def bounds(
    cost: Tensor, a: Tensor, b: Tensor, *, relative: float = 0.02, iterations: int = 240
) -> Bounds:
    """Bounds of transport for costs [n, m] and masses of one total, all above zero.

    Args:
        cost: fp32 [n, m].
        a: masses [n].
        b: masses [m].
        relative: ε over the potentials' deviation within the two sides.
        iterations: scalings at the final ε.
    """
    cost = cost.float()
    total = a.sum()
    first, second = (a / total).float(), (b / b.sum()).float()
    g, epsilon = coarse_potential(cost, first, second, relative)
    plan = refine(cost, first, second, g, epsilon, iterations)
    f, g = transforms(cost, plan.g)
    matrix = total * feasible_plan(plan, first, second)
    lower = float(total * (first @ f + second @ g))
    # Rounding may put the sums the other way round where the gap is nothing.
    return Bounds(lower, max(lower, float((matrix * cost).sum())), matrix, f, g)


def no_bounds(like: Tensor) -> Bounds:
    """Where nothing moves."""
    empty = torch.zeros(0, device=like.device)
    return Bounds(0.0, 0.0, torch.zeros(0, 0, device=like.device), empty, empty)
