"""Exact transport in the full embedding cost, by the network simplex of the package POT.

For diagnostics and small vocabularies: it runs on one CPU thread and takes about a second for 2,048
tokens a side. POT is an optional dependency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plot_exp.errors import UserError
from plot_exp.ot.costs import Cost
from plot_exp.ot.residual import follow, residual

_BLOCK_ELEMENTS = 16_000_000


@dataclass(frozen=True)
class ExactTransport:
    """An optimal plan and optimal potentials.

    Attributes:
        value: ⟨plan, cost⟩.
        plan: [n, m].
        f: potential [n] of the giving side, f_i + g_j ≤ C_ij.
        g: potential [m] of the receiving side.
    """

    value: float
    plan: Tensor
    f: Tensor
    g: Tensor


def solve(cost: Tensor, a: Tensor, b: Tensor) -> ExactTransport:
    """The linear program for costs [n, m] and masses `a` [n], `b` [m], all above zero, in float64.

    Raises:
        UserError: POT is not installed.
        ValueError: the solver did not finish.
    """
    solver = _solver()
    matrix = cost.detach().double().cpu().contiguous()
    weights = [side.detach().double().cpu() for side in (a, b)]
    weights = [side / side.sum() for side in weights]
    plan, log = solver.emd(
        weights[0].numpy(), weights[1].numpy(), matrix.numpy(), numItermax=10**8, log=True
    )
    if log["warning"]:
        raise ValueError(f"the exact transport solver stopped early: {log['warning']}")
    # Rounding may leave potentials a little infeasible; two c-transforms make them feasible.
    f = (matrix - torch.from_numpy(log["v"])).amin(1)
    g = (matrix - f.unsqueeze(1)).amin(0)
    total = float(a.sum())
    return ExactTransport(total * float(log["cost"]), total * torch.from_numpy(plan), f, g)


def exact_distance(p: Tensor, q: Tensor, cost: Cost, *, limit: int = 2_048) -> Tensor:
    """Exact transport of the residuals of p and q, differentiable in `p`.

    Args:
        p: distributions [..., V].
        q: distribution [V].
        cost: the cost between tokens.
        limit: tokens on each side; the rest of a side is one bin at its barycentre.

    Returns:
        [...]; the gradient is the dual potential, extended to every token by the c-transform.

    Raises:
        UserError: POT is not installed.
    """
    rows = [_row(row, q, cost, limit) for row in p.reshape(-1, p.shape[-1])]
    return torch.stack(rows).reshape(p.shape[:-1])


def _row(p: Tensor, q: Tensor, cost: Cost, limit: int) -> Tensor:
    giving, receiving = residual(p, q.to(p.dtype), limit, cost.points)
    if not len(giving.tokens) or not len(receiving.tokens):
        return 0 * p.sum()
    x, a = giving.bins(cost.points)
    y, b = receiving.bins(cost.points)
    x, y = x.double(), y.double()
    solution = solve(cost.between(x, y), a, b)
    f, g = solution.f.to(x.device), solution.g.to(x.device)
    potential = torch.empty_like(cost.points[:, 0], dtype=torch.float64)
    block = max(1, _BLOCK_ELEMENTS // max(len(x), len(y)))
    for ids in torch.arange(len(potential), device=p.device).split(block):
        here = cost.points[ids].double()
        gives = (cost.between(here, y) - g).amin(1)
        receives = (cost.between(here, x) - f).amin(1)
        potential[ids] = torch.where(p.detach()[ids] < q.to(p.dtype)[ids], -receives, gives)
    value = p.new_tensor(solution.value)
    return follow(p, value, potential - potential.mean())


def _solver() -> Any:
    try:
        import ot  # POT; this package's own `ot` is plot_exp.ot
    except ImportError as error:
        raise UserError(
            "transport=exact needs the package POT (pip install POT); "
            "transport=dual and transport=sinkhorn do without"
        ) from error
    return ot
