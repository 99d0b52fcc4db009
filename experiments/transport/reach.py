"""How close carried potentials come to exact transport along training runs.

    python experiments/transport/reach.py OUT.csv NAME=TRAJECTORY.safetensors ...

Every step of a run is taken in turn; at some of them the potential is held against POT's `emd` on
the tokens that carry mass. Exact potentials are made feasible by two c-transforms and compared
within each side, where a constant does not matter; see `plot_exp.ot.agreement`.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trajectory import Trajectory
from write import write_reach

from plot_exp.ot.agreement import agreement
from plot_exp.ot.costs import Cost, build_cost
from plot_exp.ot.dual import DualState, DualTransport
from plot_exp.ot.exact import solve
from plot_exp.ot.residual import residual

COSTS: dict[str, dict[str, Any]] = {
    "raw": {"scale": "raw"},
    "power 4": {"shape": "power", "parameter": 4.0},
    "saturating ½": {"shape": "saturating", "parameter": 0.5},
}
LIMIT = 2_048


def embeddings(trajectory: Trajectory) -> dict[str, Tensor]:
    """The run's own, and made ones of the same size: Gaussian, and a hundred clusters."""
    size = len(trajectory.target)
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(100, 128, generator=draw)
    own = torch.randint(100, (size,), generator=draw)
    return {
        "input": trajectory.input,
        "Gaussian": torch.randn(size, 128, generator=draw),
        "clusters": centres[own] + 0.3 * torch.randn(size, 128, generator=draw),
    }


def follow_run(trajectory: Trajectory, cost: Cost, steps: int) -> list[dict[str, Any]]:
    """One row for every step that is compared: the first, the second and every fifth."""
    transport = DualTransport(cost, trajectory.target, limit=LIMIT)
    state = DualState.start(len(trajectory.target))
    rows = []
    for step, p in enumerate(trajectory.distributions[:steps]):
        outcome = transport.step(p, state)
        before, state = state, outcome.state
        if step not in (0, 1) and (step + 1) % 5:
            continue
        giving, receiving = residual(p, trajectory.target.float(), LIMIT)
        exact = solve(
            transport.cost.tokens(giving.tokens, receiving.tokens),
            giving.masses,
            receiving.masses,
        )
        found = agreement(state.potential, giving, receiving, exact.f, exact.g)
        upper = transport.step(p, before, with_upper=True).upper
        assert upper is not None
        total = float((p - trajectory.target.float()).clamp_min(0).sum())
        scale = total * exact.value / float(giving.masses.sum())
        rows.append(
            {
                "step": step + 1,
                "giving tokens": len(giving.tokens),
                "receiving tokens": len(receiving.tokens),
                "giving": found.giving,
                "receiving": found.receiving,
                "error": found.error,
                "value / exact": float(outcome.distance) / scale,
                "upper / exact": float(upper) / scale,
                "carried giving": float(outcome.carried[0]),
                "carried receiving": float(outcome.carried[1]),
                "marginal error": outcome.error,
                "scalings": outcome.scalings,
            }
        )
    return rows


def main() -> None:
    """Follows every run in every embedding and cost, and writes one table."""
    out, *runs = sys.argv[1:]
    rows = []
    for run in runs:
        name, _, path = run.partition("=")
        trajectory = Trajectory.load(Path(path))
        size = int(trajectory.allowed.sum())
        large = size > 50_000
        for kind, table in embeddings(trajectory).items():
            for label, options in list(COSTS.items())[: 2 if large else None]:
                cost = build_cost(
                    table,
                    allowed=trajectory.allowed,
                    token_mass=trajectory.token_mass,
                    target=trajectory.target,
                    **options,
                )
                found = follow_run(trajectory, cost, 10 if large else 15)
                facts = {"run": name, "tokens": size, "embedding": kind, "cost": label}
                rows += [{**facts, **row} for row in found]
                print(*facts.values(), *(f"{row['error']:.3f}" for row in found), flush=True)
    with Path(out).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{cell:.5g}" if isinstance(cell, float) else cell for key, cell in row.items()}
            for row in rows
        )
    write_reach(Path(out).parent)


if __name__ == "__main__":
    main()
