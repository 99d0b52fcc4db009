"""Transport by Kantorovich potentials that are carried from step to step.

The gradient of transport in p is a potential over tokens, and it moves slowly in training. So each
step starts from the last potentials and refines them by a few scalings of the entropic problem with
small ε (Sinkhorn with absorbed potentials, Schmitzer, arXiv 1610.06519), then makes them feasible
by two hard c-transforms: f(v) = min_j C(v, j) − g_j. The value is the dual objective of feasible
potentials, so a lower bound of transport between the residuals that are carried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from plot_exp.ot.costs import Cost
from plot_exp.ot.residual import Side, follow
from plot_exp.ot.scaling import (
    Plan,
    coarse_potential,
    feasible_cost,
    feasible_plan,
    refine,
    transforms,
    within_deviation,
)
from plot_exp.ot.target_costs import TargetCosts

# Where 12 scalings leave more than this share of the error, they have stalled: mass has to move
# between distant groups of tokens, and a larger ε for some moves it there several times faster.
_STALLED = 0.5

# ε follows the potentials from step to step by this factor at most.
_EPSILON_CHANGE = 1.25


@dataclass(frozen=True)
class DualState:
    """What is carried from step to step and kept in a checkpoint; all plain tensors.

    Attributes:
        potential: fp32 [V], up to a constant: ∂W/∂p.
        epsilon: float64 scalar in units of the cost; zero before the first step.
        cursor: int64 scalar, the token at which the next refresh of light tokens begins.
    """

    potential: Tensor
    epsilon: Tensor
    cursor: Tensor

    @classmethod
    def start(cls, vocab_size: int, device: torch.device | str = "cpu") -> DualState:
        """The state before the first step."""
        return cls(
            torch.zeros(vocab_size, device=device),
            torch.zeros((), dtype=torch.float64),
            torch.zeros((), dtype=torch.int64),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint; `DualState(**tensors)` reads it back."""
        return {"potential": self.potential, "epsilon": self.epsilon, "cursor": self.cursor}


@dataclass(frozen=True)
class DualStep:
    """The outcome of one step.

    Attributes:
        distance: scalar, the dual value; its gradient in p is the potential.
        state: to be passed to the next step.
        upper: value of a feasible plan of the same residuals; None unless it was asked for.
        carried: share of the giving and of the receiving residual mass on the tokens used.
        error: total-variation error of the receiving marginal when the scalings ended.
        scalings: made in this step; the first one's on the way to its ε are not counted.
    """

    distance: Tensor
    state: DualState
    upper: Tensor | None
    carried: tuple[Tensor, Tensor]
    error: float
    scalings: int


@dataclass(frozen=True)
class DualPlan:
    """Who gives to whom at the end of a step; p's and q's residuals on the tokens used.

    Attributes:
        giving, receiving: tokens and masses.
        matrix: [n, m], rows and columns sum to the masses, scaled to the whole residual.
        cost: [n, m].
    """

    giving: Side
    receiving: Side
    matrix: Tensor
    cost: Tensor


class DualTransport:
    """Transport to a fixed target in a fixed cost.

    Distances from every token to the target's heaviest tokens, twice `limit` of them, are computed
    once where they fit, so a step costs no distance; otherwise they are computed for the tokens of
    the step. Memory is at most V × 2·limit, never V × V.

    Args:
        cost: the cost between tokens.
        target: q [V].
        limit: most tokens a side, the heaviest.
        epsilon: of the entropy, relative to the deviation of the potentials within the two sides,
            which is what the embeddings add to the sign of p − q; followed from step to step.
        iterations: scalings in a step; twice as many while the error is above `tolerance`, and at
            most five and a half times where they stall.
        first_iterations: scalings in the first step, at the final ε.
        tolerance: total-variation error of the receiving marginal.
        refresh: light tokens whose potential is brought up to date in each step: half of it the
            heaviest of p, half in turn; None for 4,096 on a CPU and all of them elsewhere.
        memory: bytes that the kept distances may take.
    """

    def __init__(
        self,
        cost: Cost,
        target: Tensor,
        *,
        limit: int = 2_048,
        epsilon: float = 0.05,
        iterations: int = 24,
        first_iterations: int = 480,
        tolerance: float = 3e-3,
        refresh: int | None = None,
        memory: int = 2 * 1024**3,
    ) -> None:
        self.cost = replace(cost, points=cost.points.float())
        self.target = target.detach().to(cost.points.device)
        self.limit = limit
        self.epsilon = epsilon
        self.iterations = iterations
        self.first_iterations = first_iterations
        self.tolerance = tolerance
        size = len(self.target)
        self.refresh = refresh or (4_096 if self.target.device.type == "cpu" else size)
        self.costs = TargetCosts(self.cost, self.target, limit, 2 * limit, memory)

    def step(self, p: Tensor, state: DualState, with_upper: bool = False) -> DualStep:
        """One step: refines the potentials for `p` [V] and measures the distance.

        Args:
            p: distribution [V]; may require a gradient.
            state: of the last step, or `DualState.start`.
            with_upper: also round the plan to a feasible one and give its cost.
        """
        giving, receiving, total = self._sides(p)
        if not len(giving.tokens) or not len(receiving.tokens):
            one = p.new_ones(())
            nothing = 0 * one if with_upper else None
            return DualStep(0 * p.sum(), state, nothing, (one, one), 0.0, 0)
        cost = self.costs.to(giving.tokens, receiving.tokens)
        a, b = giving.masses / giving.masses.sum(), receiving.masses / receiving.masses.sum()
        plan, epsilon = self._refine(cost, a, b, receiving, state)
        f, g = transforms(cost, plan.g)
        value = total * (a @ f + b @ g)
        upper = total * feasible_cost(cost, plan, a, b) if with_upper else None
        potential, cursor = self._extend(p.detach(), state, giving, receiving, f, g)
        wanted = self.epsilon * within_deviation(f, a, g, b)
        if wanted > 0:
            epsilon = min(max(wanted, epsilon / _EPSILON_CHANGE), epsilon * _EPSILON_CHANGE)
        else:
            # One token a side says nothing of ε: a first step leaves it to the next.
            epsilon = float(state.epsilon)
        following = DualState(potential, state.epsilon.new_tensor(epsilon), cursor)
        carried = (giving.masses.sum() / total, receiving.masses.sum() / total)
        distance = follow(p, value, potential)
        return DualStep(distance, following, upper, carried, plan.error, plan.scalings)

    def plan(self, p: Tensor, state: DualState) -> DualPlan | None:
        """The feasible plan at `p` [V] from `state` on; None where nothing moves."""
        giving, receiving, total = self._sides(p)
        if not len(giving.tokens) or not len(receiving.tokens):
            return None
        cost = self.costs.to(giving.tokens, receiving.tokens)
        a, b = giving.masses / giving.masses.sum(), receiving.masses / receiving.masses.sum()
        plan, _ = self._refine(cost, a, b, receiving, state)
        sides = (replace(giving, masses=total * a), replace(receiving, masses=total * b))
        return DualPlan(*sides, total * feasible_plan(plan, a, b), cost)

    def _refine(
        self, cost: Tensor, a: Tensor, b: Tensor, receiving: Side, state: DualState
    ) -> tuple[Plan, float]:
        """The plan of a step and its ε: from nothing, or from the carried potentials on."""
        epsilon = float(state.epsilon)
        if epsilon == 0.0:
            g, epsilon = coarse_potential(cost, a, b, self.epsilon)
            return refine(cost, a, b, g, epsilon, self.first_iterations), epsilon
        g = -state.potential[receiving.tokens]
        count, made = self.iterations, 0
        once = partial(refine, cost, a, b, most=2 * count, tolerance=self.tolerance)
        plan = once(g, epsilon, count, stalled=_STALLED)
        if plan.error > self.tolerance:
            for factor in (4, 2):
                made += plan.scalings
                plan = refine(cost, a, b, plan.g, factor * epsilon, max(1, 3 * count // 4))
            made += plan.scalings
            plan = once(plan.g, epsilon, count)
        return replace(plan, scalings=made + plan.scalings), epsilon

    def _sides(self, p: Tensor) -> tuple[Side, Side, Tensor]:
        """Both sides of the residual, and its mass."""
        difference = p.detach().float() - self.target.float()
        sides = []
        for excess in (difference.clamp_min(0), (-difference).clamp_min(0)):
            masses, tokens = excess.topk(min(self.limit, int((excess > 0).sum())))
            sides.append(Side(tokens, masses, excess.sum() - masses.sum()))
        return sides[0], sides[1], difference.clamp_min(0).sum()

    def _extend(
        self, p: Tensor, state: DualState, giving: Side, receiving: Side, f: Tensor, g: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Potentials [V]: of this step where mass moves, by c-transforms elsewhere.

        The target's tokens and the heaviest of p are brought up to date in each step, since the
        next one may begin with them; the others in turn.
        """
        size = len(state.potential)
        first = float(state.epsilon) == 0.0 or self.refresh >= size
        start = 0 if first else int(state.cursor)
        turn = size if first else max(1, self.refresh // 2)
        due = torch.zeros(size, dtype=torch.bool, device=p.device)
        due[(start + torch.arange(turn, device=p.device)) % size] = True
        if not first:
            heaviest = min(size, len(giving.tokens) + self.refresh - turn)
            due[self.costs.columns] = True
            due[p.topk(heaviest).indices] = True
        due[giving.tokens] = False
        due[receiving.tokens] = False
        # What the target lacks is received there, beyond the tokens used too.
        lacks = p.float() < self.target.float()
        gives, takes = (torch.nonzero(due & side).flatten() for side in (~lacks, lacks))
        potential = state.potential.clone()
        potential[gives] = self.costs.lowest(gives, receiving.tokens, g)
        potential[takes] = self.costs.highest(giving.tokens, f, takes)
        potential[giving.tokens] = f
        potential[receiving.tokens] = -g
        return potential, state.cursor.new_tensor((start + turn) % size)
