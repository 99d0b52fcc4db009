"""What PLOT's form has to do with transport in the full embedding cost, at one distribution.

The full cost is the form's own where it has one, else ‖e_i − e_j‖ of the same embeddings in the
form's scale. It is solved between a lower and an upper bound (`plot_exp.ot.bounds`) on the heaviest
residual tokens of each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plot_exp.losses.context import Context
from plot_exp.losses.plot import PLOT, embedding
from plot_exp.ot.agreement import Agreement, agreement
from plot_exp.ot.bounds import Bounds, bounds
from plot_exp.ot.flows import Flows, line_flows, matrix_flows
from plot_exp.ot.geometry import LineTransport, normalised
from plot_exp.ot.residual import residual

# Tokens a side: the solution takes a fraction of a second on a CPU.
LIMIT = 1_536
SHOWN_FLOWS = 30

# Flows of slices are many; their embeddings are looked up in blocks.
_BLOCK_FLOWS = 65_536


@dataclass(frozen=True)
class Faithfulness:
    """The form beside full transport.

    Attributes:
        value: of the form.
        full: bounds of full transport of the carried residuals, scaled to the whole residual.
        carried: the smaller of the two sides' shares of residual mass on the tokens used.
        gradient: agreement of the form's gradient with the full potential.
        plan_cost: what the form's own plan for the carried residuals costs in the full cost; None
            where it has no plan.
        form_flows: the largest flows of the form's plan, None likewise.
        full_flows: the largest flows of full transport.
        mass: what moves.
    """

    value: float
    full: Bounds
    carried: float
    gradient: Agreement
    plan_cost: float | None
    form_flows: Flows | None
    full_flows: Flows
    mass: float

    def metrics(self) -> dict[str, float]:
        """For the log, under `val/transport_`; what is not a number is left out."""
        found = {
            "value": self.value,
            "full_lower": self.full.lower,
            "full_upper": self.full.upper,
            "full_gap": self.full.gap,
            "gradient_giving": self.gradient.giving,
            "gradient_receiving": self.gradient.receiving,
            "carried": self.carried,
        }
        if self.plan_cost is not None and self.full.lower > 0:
            found["plan_excess"] = self.plan_cost / self.full.lower - 1
        return {key: number for key, number in found.items() if number == number}

    def rows(self, names: Sequence[str]) -> dict[str, Any]:
        """The large flows as plain values, for a file."""
        shown = {"form": self.form_flows, "full": self.full_flows}
        return {
            "mass": self.mass,
            **{key: _rows(flows, names, self.mass) for key, flows in shown.items() if flows},
        }


def faithfulness(plot: PLOT, context: Context, distribution: Tensor) -> Faithfulness | None:
    """Compares PLOT's form with full transport at a mean distribution [V]; None at the target."""
    p = plot.restrict(distribution.to(plot.target.device, torch.float32)).detach()
    q = plot.target.float()
    giving, receiving = residual(p, q, LIMIT)
    if not len(giving.tokens) or not len(receiving.tokens):
        return None
    own = hasattr(plot.transport, "cost")
    table = None if own else embedding(plot.config, context)
    matrix = _cost_matrix(plot, table, giving.tokens, receiving.tokens)
    total = (p - q).clamp_min(0).sum()
    shares = [float(side.masses.sum() / total) for side in (giving, receiving)]
    masses = [total * side.masses / side.masses.sum() for side in (giving, receiving)]
    found = bounds(matrix, *masses)
    value, gradient = _value_and_gradient(plot, p)
    flows = plan_cost = None
    transport = plot.transport
    if isinstance(transport, LineTransport):
        flows = line_flows(p, q, transport)
        # Like is compared with like: the plan for the tokens that full transport was solved on.
        carried = q.index_add(0, giving.tokens, masses[0])
        carried = carried.index_add(0, receiving.tokens, -masses[1])
        plan_cost = _plan_cost(plot, table, line_flows(carried, q, transport))
    return Faithfulness(
        value=value,
        full=found,
        carried=min(shares),
        gradient=agreement(gradient, giving, receiving, found.f, found.g, scaled=True),
        plan_cost=plan_cost,
        form_flows=None if flows is None else flows.largest(SHOWN_FLOWS),
        full_flows=matrix_flows(found.plan, matrix, giving.tokens, receiving.tokens, SHOWN_FLOWS),
        mass=float(total),
    )


def _value_and_gradient(plot: PLOT, p: Tensor) -> tuple[float, Tensor]:
    """The form's value and gradient [V] at p; carried potentials stay as they were."""
    leaf = p.clone().requires_grad_()
    state = getattr(plot.transport, "state", None)
    with torch.enable_grad():
        value = plot.distance(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
    if state is not None:
        plot.transport.state = state  # type: ignore[attr-defined]
    return float(value.detach()), gradient


def _cost_matrix(
    plot: PLOT, table: Tensor | None, givers: Tensor, receivers: Tensor, paired: bool = False
) -> Tensor:
    """Full costs [n, m] between tokens [n] and [m]; [n] between pairs of them if `paired`."""
    if table is None:
        return plot.transport.cost.tokens(givers, receivers)  # type: ignore[attr-defined]
    places = [table[tokens.to(table.device)].float() for tokens in (givers, receivers)]
    if plot.config.normalise:
        places = [normalised(place) for place in places]
    unit = plot.transport.unit if isinstance(plot.transport, LineTransport) else 1.0
    if paired:
        return torch.linalg.vector_norm(places[0] - places[1], dim=-1).to(givers.device) / unit
    return torch.cdist(places[0], places[1]).to(givers.device) / unit


def _plan_cost(plot: PLOT, table: Tensor | None, flows: Flows) -> float:
    """What the form's whole plan costs in the full cost."""
    paid = 0.0
    for start in range(0, len(flows.masses), _BLOCK_FLOWS):
        part = slice(start, start + _BLOCK_FLOWS)
        costs = _cost_matrix(plot, table, flows.givers[part], flows.receivers[part], paired=True)
        paid += float(flows.masses[part] @ costs.double())
    return paid


def _rows(flows: Flows, names: Sequence[str], mass: float) -> list[dict[str, Any]]:
    return [
        {
            "giver": names[giver],
            "giver_id": giver,
            "receiver": names[receiver],
            "receiver_id": receiver,
            "mass": moved,
            "share": moved / mass,
            "cost": cost,
        }
        for giver, receiver, moved, cost in zip(
            flows.givers.tolist(),
            flows.receivers.tolist(),
            flows.masses.tolist(),
            flows.costs.tolist(),
            strict=True,
        )
    ]
