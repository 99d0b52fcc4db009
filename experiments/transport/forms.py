"""What each form of transport has to do with exact transport.

Gradient: mass-weighted correlation with POT's `emd` dual over the heaviest residual tokens, within
the giving side, within the receiving side, and over both; and the root mean square error left by
the best multiple of the gradient, over that of the best multiple of sign(p − q). Value: correlation
with exact transport over mixtures of dialogues' responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plot_exp.ot.agreement import agreement, correlation
from plot_exp.ot.costs import Cost, build_cost
from plot_exp.ot.dual import DualState, DualTransport
from plot_exp.ot.exact import solve
from plot_exp.ot.geometry import build_transport
from plot_exp.ot.mass import restrict
from plot_exp.ot.residual import residual
from plot_exp.ot.sinkhorn import sinkhorn_distance

GRADIENT_LIMIT, VALUE_LIMIT = 2_048, 600
LINES: dict[str, dict[str, Any]] = {
    "line, principal by mass": {"line": "principal"},
    "line, principal": {"line": "principal_unweighted"},
    "line, norm": {"line": "norm"},
    "line, random": {"line": "random"},
    "token id": {"line": "token_id"},
    "path": {"transport": "path"},
    "sliced, 64": {"transport": "sliced", "directions": 64},
}
COSTS: dict[str, dict[str, Any]] = {
    "raw": {},
    "power 4": {"shape": "power", "parameter": 4.0},
    "centred, normalised": {"transforms": ("centred", "normalised")},
}


@dataclass(frozen=True)
class Setting:
    """One vocabulary, embedding, target and p.

    Attributes:
        facts: what the rows are labelled with.
        embedding: [V, D].
        allowed: [V] bool.
        token_mass: [V].
        target: q [V].
        p: [V], where gradients are compared.
        before: distributions of the steps before it, for carried potentials; may be empty.
        mixtures: [n, V], where values are compared; may be empty.
    """

    facts: dict[str, str]
    embedding: Tensor
    allowed: Tensor
    token_mass: Tensor
    target: Tensor
    p: Tensor
    before: Sequence[Tensor]
    mixtures: Tensor


Form = Callable[[Tensor], Tensor]


def measure(setting: Setting, label: str) -> list[dict[str, Any]]:
    """A row for every form, in one cost."""
    cost = build_cost(
        setting.embedding,
        allowed=setting.allowed,
        token_mass=setting.token_mass,
        target=setting.target,
        **COSTS[label],
    )
    forms = _forms(setting, cost)
    q = setting.target.float()
    giving, receiving = residual(setting.p.float(), q, GRADIENT_LIMIT)
    exact = solve(cost.tokens(giving.tokens, receiving.tokens), giving.masses, receiving.masses)
    values = [exact_value(row, q, cost) for row in setting.mixtures]
    rows = []
    for name, form in forms.items():
        leaf = setting.p.float().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(form(leaf), leaf)
        found = agreement(gradient, giving, receiving, exact.f, exact.g, scaled=True)
        row = {**setting.facts, "cost": label, "form": name}
        row |= {"giving": found.giving, "receiving": found.receiving}
        row |= {"both": found.both, "error": found.error}
        row["value"] = float("nan")
        if len(values) and "warm" not in name:
            ours = [float(form(one.float())) for one in setting.mixtures]
            pair = torch.tensor([ours, values], dtype=torch.float64)
            row["value"] = correlation(pair[0], pair[1], torch.ones_like(pair[0]))
        rows.append(row)
    return rows


def _forms(setting: Setting, cost: Cost) -> dict[str, Form]:
    q = setting.target.float()
    forms: dict[str, Form] = {}
    for name, options in LINES.items():
        transport = build_transport(
            setting.embedding,
            allowed=setting.allowed,
            token_mass=setting.token_mass,
            target=setting.target,
            **options,
        )
        forms[name] = lambda p, transport=transport: transport.distance(p, q)  # type: ignore[misc]
    forms["sign of p − q"] = lambda p: 0.5 * (p - q).abs().sum()
    forms["sinkhorn, ε = 0.05"] = lambda p: sinkhorn_distance(
        p, q, cost, epsilon=0.05, limit=768, iterations=100, tolerance=1e-3
    )
    dual = DualTransport(cost, setting.target)
    start = DualState.start(len(q))
    forms["dual, cold"] = lambda p: dual.step(p, start).distance
    if len(setting.before):
        state = start
        for p in setting.before:
            state = dual.step(p, state).state
        forms["dual, warm"] = lambda p: dual.step(p, state).distance
    return forms


def exact_value(p: Tensor, q: Tensor, cost: Cost) -> float:
    """Exact transport of the heaviest residual tokens, scaled up to the whole residual."""
    giving, receiving = residual(p.float(), q, VALUE_LIMIT)
    if not len(giving.tokens):
        return 0.0
    found = solve(cost.tokens(giving.tokens, receiving.tokens), giving.masses, receiving.masses)
    share = float(giving.masses.sum() / (p.float() - q).clamp_min(0).sum())
    return found.value / share


def mixtures(rows: Sequence[Sequence[int]], allowed: Tensor, count: int, seed: int) -> Tensor:
    """[count, V] token frequencies of 40 responses each, drawn anew, smoothed by a pseudo-count."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        chosen = torch.randint(len(rows), (40,), generator=draw).tolist()
        ids = torch.tensor([token for row in chosen for token in rows[row]])
        counts = torch.bincount(ids, minlength=len(allowed)).double()
        found.append(restrict(counts + 1e-3, allowed))
    return torch.stack(found)
