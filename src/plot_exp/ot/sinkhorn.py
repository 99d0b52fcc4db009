"""Entropic transport in the full embedding cost (Cuturi, arXiv 1306.0895), in the log domain.

OT_ε(a, b) = min over plans of ⟨P, C⟩ + ε·KL(P ‖ a ⊗ b) = ⟨a, f⟩ + ⟨b, g⟩ at the optimal potentials;
its gradient is f in a and g in b, so no iteration is differentiated through. Debiased:
OT_ε(a, b) − ½OT_ε(a, a) − ½OT_ε(b, b) (Feydy et al., arXiv 1810.08278).
"""

from __future__ import annotations

import torch
from torch import Tensor

from plot_exp.ot.costs import Cost
from plot_exp.ot.residual import follow, residual

_BLOCK_ELEMENTS = 16_000_000


def sinkhorn_distance(
    p: Tensor,
    q: Tensor,
    cost: Cost,
    *,
    epsilon: float = 0.05,
    limit: int = 2_048,
    debiased: bool = False,
    iterations: int = 2_000,
    tolerance: float = 1e-6,
) -> Tensor:
    """Entropic transport of the residuals of p and q, differentiable in `p`.

    Args:
        p: distributions [..., V].
        q: distribution [V].
        cost: the cost between tokens.
        epsilon: the entropy's weight in units of the cost (with `scale=spread` of its spread).
        limit: tokens on each side; the rest of a side is one bin at its barycentre.
        debiased: subtract the two self terms.
        iterations: at most, at the final ε.
        tolerance: total-variation error of the marginals at which to stop.

    Returns:
        [...]; the gradient is the potential, extended to every token by the soft c-transform.
    """
    rows = [
        _row(row, q, cost, epsilon, limit, debiased, iterations, tolerance)
        for row in p.reshape(-1, p.shape[-1])
    ]
    return torch.stack(rows).reshape(p.shape[:-1])


def sinkhorn_potentials(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Potentials f [n], g [m] of OT_ε for probabilities `a`, `b` and costs [n, m].

    ε falls by halves from the largest cost; the columns hold exactly, the rows to `tolerance`.
    """
    log_a, log_b = a.log(), b.log()
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    step = max(float(cost.max()), epsilon)
    while step > epsilon:
        for _ in range(5):
            f = soft_transform(cost, g, log_b, step)
            g = soft_transform(cost.T, f, log_a, step)
        step = max(step / 2, epsilon)
    for _ in range(iterations):
        update = soft_transform(cost, g, log_b, epsilon)
        # With the columns exact, the rows' masses are off by the factor that the update takes out.
        error = float((a * torch.expm1((f - update) / epsilon)).abs().sum())
        f = update
        if error <= tolerance:
            break
        g = soft_transform(cost.T, f, log_a, epsilon)
    return f, g


def self_potential(
    cost: Tensor, a: Tensor, epsilon: float, iterations: int, tolerance: float
) -> Tensor:
    """The potential f [n] of OT_ε(a, a), by averaged updates."""
    log_a, f = a.log(), torch.zeros_like(a)
    for _ in range(iterations):
        update = soft_transform(cost, f, log_a, epsilon)
        change = float((a * (update - f).abs()).sum()) / epsilon
        f = 0.5 * (f + update)
        if change <= tolerance:
            break
    return f


def soft_transform(cost: Tensor, g: Tensor, log_b: Tensor, epsilon: float) -> Tensor:
    """−ε log Σ_j b_j exp((g_j − C_ij)/ε), [n]."""
    return -epsilon * torch.logsumexp(log_b + (g - cost) / epsilon, dim=1)


def _row(
    p: Tensor,
    q: Tensor,
    cost: Cost,
    epsilon: float,
    limit: int,
    debiased: bool,
    iterations: int,
    tolerance: float,
) -> Tensor:
    giving, receiving = residual(p, q.to(p.dtype), limit, cost.points)
    if not len(giving.tokens) or not len(receiving.tokens):
        return 0 * p.sum()
    x, a = giving.bins(cost.points)
    y, b = receiving.bins(cost.points)
    total = a.sum()
    a, b = (a / total).to(x.dtype), (b / b.sum()).to(x.dtype)
    matrix = cost.between(x, y)
    f, g = sinkhorn_potentials(matrix, a, b, epsilon, iterations, tolerance)
    value = a @ f + b @ g
    self_a = self_b = None
    if debiased:
        self_a = self_potential(cost.between(x, x), a, epsilon, iterations, tolerance)
        self_b = self_potential(cost.between(y, y), b, epsilon, iterations, tolerance)
        value = value - a @ self_a - b @ self_b
    potential = torch.empty_like(cost.points[:, 0])
    block = max(1, _BLOCK_ELEMENTS // max(len(x), len(y)))
    for ids in torch.arange(len(potential), device=p.device).split(block):
        # Tokens that receive see the other side's potential, with the opposite sign.
        at_y = _extend(cost, ids, y, g, b, epsilon)
        at_x = _extend(cost, ids, x, f, a, epsilon)
        if self_a is not None and self_b is not None:
            at_y = at_y - _extend(cost, ids, x, self_a, a, epsilon)
            at_x = at_x - _extend(cost, ids, y, self_b, b, epsilon)
        potential[ids] = torch.where(p.detach()[ids] < q.to(p.dtype)[ids], -at_x, at_y)
    return follow(p, total * value, potential - potential.mean())


def _extend(
    cost: Cost, ids: Tensor, places: Tensor, g: Tensor, b: Tensor, epsilon: float
) -> Tensor:
    return soft_transform(cost.between(cost.points[ids], places), g, b.log(), epsilon)
