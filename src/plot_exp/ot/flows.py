"""Which tokens give mass to which: transport plans as lists of flows.

On a line the monotone plan, the north-west corner of the sorted masses, is exact. What moves are
the residuals (p − q)₊ and (q − p)₊: on a line, as under any metric, that costs as much as moving p
to q, and common mass stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plot_exp.ot.geometry import LineTransport
from plot_exp.ot.line import Line, value_and_potential


@dataclass(frozen=True)
class Flows:
    """A sparse plan: k flows.

    Attributes:
        givers: token ids [k].
        receivers: token ids [k].
        masses: [k], all above zero.
        costs: [k], of moving one unit of mass.
    """

    givers: Tensor
    receivers: Tensor
    masses: Tensor
    costs: Tensor

    @property
    def mass(self) -> float:
        """All mass that moves."""
        return float(self.masses.double().sum())

    @property
    def cost(self) -> float:
        """What it costs, the value of the plan."""
        return float(self.masses.double() @ self.costs.double())

    def largest(self, count: int) -> Flows:
        """The flows that move most mass, by falling mass."""
        order = torch.argsort(self.masses, descending=True, stable=True)[:count]
        return Flows(
            self.givers[order], self.receivers[order], self.masses[order], self.costs[order]
        )


def monotone_flows(difference: Tensor, line: Line) -> Flows:
    """The monotone plan along a line, exactly, for masses that differ by `difference` [V].

    Args:
        difference: p − q, summing to zero over the tokens of the line.
        line: the tokens in their order.

    Returns:
        At most one flow fewer than there are tokens with residual mass.
    """
    ordered = difference.double()[line.order]
    positions = line.positions()
    sides = [torch.nonzero(part > 0).flatten() for part in (ordered, -ordered)]
    if not len(sides[0]) or not len(sides[1]):
        nothing = difference.new_zeros(0, dtype=torch.float64)
        none = torch.zeros(0, dtype=torch.int64, device=difference.device)
        return Flows(none, none, nothing, nothing)
    giving, receiving = (ordered[side].abs().cumsum(0) for side in sides)
    # p and q each sum to one but for rounding; the shares then end at one on both sides.
    total = giving[-1].clone()
    giving, receiving = giving / giving[-1], receiving / receiving[-1]
    ends = torch.cat([giving, receiving]).sort().values
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    middle, kept = (starts + ends) / 2, ends > starts
    middle, masses = middle[kept], total * (ends - starts)[kept]
    giver = sides[0][torch.searchsorted(giving, middle).clamp_max(len(giving) - 1)]
    receiver = sides[1][torch.searchsorted(receiving, middle).clamp_max(len(receiving) - 1)]
    costs = (positions[giver] - positions[receiver]).abs()
    return Flows(line.order[giver], line.order[receiver], masses, costs)


def line_flows(p: Tensor, q: Tensor, transport: LineTransport) -> Flows:
    """The plan of a form along lines: of a mean over lines the mean of their plans.

    Its cost is the form's value: with several lines a flow's cost is the mean of its costs along
    them, and with `reduction=max` the plan is that of the farthest line.
    """
    difference = p.detach().double() - q.detach().double()
    lines = transport.lines
    if transport.reduction == "max":
        values = [float(value_and_potential(difference[None], line, False)[0]) for line in lines]
        lines = (lines[values.index(max(values))],)
    parts = [monotone_flows(difference, line) for line in lines]
    keys = torch.cat([part.givers * len(p) + part.receivers for part in parts])
    masses = torch.cat([part.masses for part in parts]) / len(lines)
    paid = torch.cat([part.masses * part.costs for part in parts]) / len(lines)
    pairs, where = keys.unique(return_inverse=True)
    mass = torch.zeros(len(pairs), dtype=torch.float64, device=p.device).index_add(0, where, masses)
    paid = torch.zeros_like(mass).index_add(0, where, paid)
    return Flows(pairs // len(p), pairs % len(p), mass, paid / mass)


def matrix_flows(
    plan: Tensor, cost: Tensor, givers: Tensor, receivers: Tensor, count: int
) -> Flows:
    """The `count` largest entries of a plan [n, m] between tokens [n] and [m]."""
    count = min(count, int((plan > 0).sum()))
    masses, places = plan.flatten().topk(count)
    rows, columns = places // plan.shape[1], places % plan.shape[1]
    return Flows(givers[rows], receivers[columns], masses, cost[rows, columns])
