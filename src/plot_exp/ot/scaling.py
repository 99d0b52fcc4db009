"""Scalings of the entropic plan with small ε, started from a potential.

Sinkhorn with absorbed potentials (Schmitzer, arXiv 1610.06519), over-relaxed (Thibault et al.,
arXiv 1711.01851): with the factor 1.7 the slow modes, mass that moves between distant groups of
tokens, need a third of the scalings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Scalings between exp(−40) and exp(40) keep every product of two in fp32; mass that needs more to
# cross an empty stretch of the kernel goes on after the next absorption.
_LARGEST = 2.0e17

# Kernel entries below exp(−60) are zero: denormal numbers would slow a CPU several times.
_FAINTEST = -60.0

_RELAXATION = 1.7

# Scalings after which the error is looked at, and between two absorptions at most.
_CHUNK, _ABSORB = 12, 48


@dataclass(frozen=True)
class Plan:
    """The entropic plan P = diag(rows) K diag(columns); its rows sum to the giving masses.

    Attributes:
        g: potential [m], with the convention P_ij = exp((f_i + g_j − C_ij)/ε).
        kernel: K [n, m].
        rows: [n].
        columns: [m].
        error: total-variation error of the column sums.
        scalings: made to get here.
    """

    g: Tensor
    kernel: Tensor
    rows: Tensor
    columns: Tensor
    error: float
    scalings: int

    def matrix(self) -> Tensor:
        """P [n, m]."""
        return self.kernel * self.rows.unsqueeze(1) * self.columns


def refine(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor,
    epsilon: float,
    iterations: int,
    *,
    most: int | None = None,
    tolerance: float = 0.0,
    stalled: float = torch.inf,
) -> Plan:
    """Scales the plan from potential `g` on, `iterations` times.

    Two hard c-transforms come first: every row and column then has an entry of exactly one in the
    kernel, so that nothing overflows and no row or column vanishes.

    Args:
        cost: [n, m].
        a, b: masses [n], [m], each of sum one.
        g: potential [m] to begin with, any.
        epsilon: the entropy's weight in units of the cost.
        iterations: scalings.
        most: scalings while the error is above `tolerance`; `iterations` if None.
        tolerance: total-variation error of the columns at which to stop, once it is looked at.
        stalled: stop where the error is above this share of what it was 12 scalings before.
    """
    most = max(iterations, most or 0)
    done, before = 0, torch.inf
    while True:
        kernel, shift = _kernel(cost, g, epsilon)
        scale, since = torch.ones_like(b), 0
        while True:
            count = min(_CHUNK, _ABSORB - since, (iterations if done < iterations else most) - done)
            scale = _scale(kernel, a, b, scale, count)
            since, done = since + count, done + count
            rows = a / (kernel @ scale)
            error = float(((rows @ kernel) * scale - b).abs().sum())
            finished = done >= most or (done >= iterations and error <= tolerance)
            finished |= error > max(tolerance, stalled * before)
            before = error
            if finished or since >= _ABSORB:
                break
        log_scale = scale.log()
        mean = b @ log_scale
        g = g + shift + epsilon * (log_scale - mean)
        if finished:
            return Plan(g, kernel, rows, scale, error, done)


def _kernel(cost: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """exp(−slack/ε) after two c-transforms, and by how much they raised `g`."""
    kernel = cost - g
    kernel -= kernel.amin(1, keepdim=True)
    shift = kernel.amin(0)
    kernel -= shift
    kernel.mul_(-1 / epsilon)
    return F.threshold(kernel, _FAINTEST, -torch.inf, inplace=True).exp_(), shift


def _scale(kernel: Tensor, a: Tensor, b: Tensor, scale: Tensor, count: int) -> Tensor:
    """`count` scalings; the first and the last are plain, so that what is left is in balance."""
    for index in range(count):
        rows = a / (kernel @ scale)
        exact = b / (rows @ kernel)
        if 0 < index < count - 1:
            exact = exact * (exact / scale).clamp(1e-4, 1e4).pow(_RELAXATION - 1)
        scale = exact.clamp(1 / _LARGEST, _LARGEST)
    return scale


def coarse_potential(cost: Tensor, a: Tensor, b: Tensor, relative: float) -> tuple[Tensor, float]:
    """Potential g [m] from nothing and the ε that suits it.

    Ten scalings at each ε, which falls by halves until it is `relative` of the potentials' own
    deviation within the two sides.
    """
    g = torch.zeros_like(b)
    floor = max(centred_deviation(cost, a, b) * 1e-3, torch.finfo(torch.float32).tiny)
    epsilon = max(float(cost.max()), floor)
    while True:
        g = refine(cost, a, b, g, epsilon, 10).g
        f, conjugate = transforms(cost, g)
        wanted = max(relative * within_deviation(f, a, conjugate, b), floor)
        if epsilon <= wanted:
            return g, epsilon
        epsilon = max(epsilon / 2, wanted)


def transforms(cost: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Feasible potentials f [n], g [m] by two hard c-transforms."""
    f = (cost - g).amin(1)
    return f, (cost - f.unsqueeze(1)).amin(0)


def within_deviation(f: Tensor, a: Tensor, g: Tensor, b: Tensor) -> float:
    """Root mean square of the potentials less each side's own mean: what the sign misses."""
    variance = a @ (f - a @ f).square() + b @ (g - b @ g).square()
    return float((variance / 2).sqrt())


def centred_deviation(cost: Tensor, a: Tensor, b: Tensor) -> float:
    """Standard deviation under a ⊗ b of the cost less its row and column means.

    Potentials take up row and column means; what is left decides the plan.
    """
    rows, columns = cost @ b, a @ cost
    centred = cost - rows.unsqueeze(1) - columns + a @ rows
    deviation = float((a @ centred.square_() @ b).sqrt())
    # With one token a side, or costs that are sums, any plan is as good: ε only has to be positive.
    return max(deviation, 1e-3 * float(cost.abs().max()), torch.finfo(torch.float32).tiny)


def feasible_plan(plan: Plan, a: Tensor, b: Tensor) -> Tensor:
    """The plan [n, m] rounded to the marginals `a` and `b` (Altschuler et al., 1705.09634)."""
    fitted, give, take = _rounded(plan, a, b)
    left = give.sum().clamp_min(torch.finfo(a.dtype).tiny)
    return fitted.matrix() + give.unsqueeze(1) * take / left


def feasible_cost(cost: Tensor, plan: Plan, a: Tensor, b: Tensor) -> Tensor:
    """⟨P, C⟩ of `feasible_plan`."""
    fitted, give, take = _rounded(plan, a, b)
    left = give.sum().clamp_min(torch.finfo(a.dtype).tiny)
    return fitted.rows @ ((fitted.kernel * cost) @ fitted.columns) + give @ cost @ take / left


def _rounded(plan: Plan, a: Tensor, b: Tensor) -> tuple[Plan, Tensor, Tensor]:
    """The plan cut down to its marginals, and what is missing [n], [m]."""
    sums = (plan.rows @ plan.kernel) * plan.columns
    columns = plan.columns * (b / sums).clamp_max(1)
    kept = plan.rows * (plan.kernel @ columns)
    # The rows sum to `a` but for rounding, which the cut must not leave negative.
    rows = plan.rows * (a / kept).clamp_max(1)
    fitted = Plan(plan.g, plan.kernel, rows, columns, plan.error, plan.scalings)
    give = (a - rows * (plan.kernel @ columns)).clamp_min(0)
    take = (b - (rows @ plan.kernel) * columns).clamp_min(0)
    return fitted, give, take
