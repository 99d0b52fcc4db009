"""Transport by Kantorovich potentials that are carried from step to step.

The gradient of transport in p is a potential over tokens, and it moves slowly in training. So each
step starts from the last potentials and refines them by a few scalings of the entropic problem with
small ε (Sinkhorn with absorbed potentials, Schmitzer, arXiv 1610.06519), then makes them feasible
by two hard c-transforms: f(v) = min_j C(v, j) − g_j. The value is the dual objective of feasible
potentials, so a lower bound of transport between the residuals that are carried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from plot_exp.ot.costs import Cost
from plot_exp.ot.residual import Side, follow

# Scalings between exp(−40) and exp(40) keep every product of two in fp32; mass that needs more to
# cross an empty stretch of the kernel goes on after the next absorption.
_LARGEST = 2.0e17

# Kernel entries below exp(−60) are zero: denormal numbers would slow a CPU several times.
_FAINTEST = -60.0

# Tokens whose potentials are extended at once: a block of costs that stays in a CPU's cache.
_BLOCK_ROWS = 256


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
    """

    distance: Tensor
    state: DualState
    upper: Tensor | None
    carried: tuple[Tensor, Tensor]
    error: float


class DualTransport:
    """Transport to a fixed target in a fixed cost.

    Distances from every token to the target's heaviest tokens are computed once where they fit, so
    a step costs no distance; otherwise they are computed for the tokens of the step. Memory is at
    most V × limit, never V × V.

    Args:
        cost: the cost between tokens.
        target: q [V].
        limit: most tokens a side; of the target the heaviest.
        epsilon: relative to the standard deviation of the doubly centred cost between the residuals
            of the first step: the part of the cost that decides who gives to whom.
        iterations: scalings in a step.
        first_iterations: scalings in the first step, at the final ε.
        refresh: light tokens whose potential is brought up to date in each step, in turn.
        memory: bytes that the kept distances may take.
    """

    def __init__(
        self,
        cost: Cost,
        target: Tensor,
        *,
        limit: int = 2_048,
        epsilon: float = 0.1,
        iterations: int = 20,
        first_iterations: int = 500,
        refresh: int = 8_192,
        memory: int = 2 * 1024**3,
    ) -> None:
        self.cost = replace(cost, points=cost.points.float())
        self.target = target.detach().to(cost.points.device)
        self.limit = limit
        self.epsilon = epsilon
        self.iterations = iterations
        self.first_iterations = first_iterations
        self.refresh = refresh
        size = len(self.target)
        self.columns = self.target.topk(min(limit, int((self.target > 0).sum()))).indices
        self.distances: Tensor | None = None
        if size * len(self.columns) * 4 <= memory:
            rows = torch.arange(size, device=self.target.device).split(4_096)
            self.distances = torch.cat([self.cost.tokens(part, self.columns) for part in rows])

    def step(self, p: Tensor, state: DualState, with_upper: bool = False) -> DualStep:
        """One step: refines the potentials for `p` [V] and measures the distance.

        Args:
            p: distribution [V]; may require a gradient.
            state: of the last step, or `DualState.start`.
            with_upper: also round the plan to a feasible one and give its cost.
        """
        difference = p.detach().float() - self.target.float()
        giving, receiving, places = self._sides(difference)
        if not len(giving.tokens) or not len(receiving.tokens):
            one = p.new_ones(())
            return DualStep(0 * p.sum(), state, 0 * one if with_upper else None, (one, one), 0.0)
        cost = self._costs(giving.tokens, places)
        total = difference.clamp_min(0).sum()
        a, b = giving.masses / giving.masses.sum(), receiving.masses / receiving.masses.sum()
        g = -state.potential[receiving.tokens]
        epsilon = float(state.epsilon)
        iterations = self.iterations
        if epsilon == 0.0:
            epsilon = self.epsilon * centred_deviation(cost, a, b)
            iterations = self.first_iterations
            g = coarse_potential(cost, a, b, epsilon)
        g, plan = refine(cost, a, b, g, epsilon, iterations)
        f = (cost - g).amin(1)
        g = (cost - f.unsqueeze(1)).amin(0)
        value = total * (a @ f + b @ g)
        upper = total * feasible_cost(cost, plan, a, b) if with_upper else None
        error = float((plan.sum(0) - b).abs().sum())
        potential, cursor = self._extend(state, giving, receiving, places, f, g)
        following = DualState(potential, state.epsilon.new_tensor(epsilon), cursor)
        carried = (giving.masses.sum() / total, receiving.masses.sum() / total)
        return DualStep(follow(p, value, potential), following, upper, carried, error)

    def _sides(self, difference: Tensor) -> tuple[Side, Side, Tensor]:
        """Both sides of the residual; the receivers are columns, at the third value's places."""
        excess = difference.clamp_min(0)
        masses, tokens = excess.topk(min(self.limit, int((excess > 0).sum())))
        giving = Side(tokens, masses, excess.sum() - masses.sum())
        lack = (-difference[self.columns]).clamp_min(0)
        places = torch.nonzero(lack).flatten()
        rest = (-difference).clamp_min(0).sum() - lack.sum()
        return giving, Side(self.columns[places], lack[places], rest), places

    def _costs(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Costs from `tokens` [n] to the columns at `places` [m], [n, m]."""
        if self.distances is None:
            return self.cost.tokens(tokens, self.columns[places])
        return self.distances.index_select(0, tokens).index_select(1, places)

    def _extend(
        self,
        state: DualState,
        giving: Side,
        receiving: Side,
        places: Tensor,
        f: Tensor,
        g: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Potentials [V]: of this step where mass moves, by the c-transform in turn elsewhere."""
        size = len(state.potential)
        first = float(state.epsilon) == 0.0
        start = 0 if first else int(state.cursor)
        stop = start + (size if first else min(self.refresh, size))
        potential = state.potential.clone()
        for low, high in ((start, min(stop, size)), (0, max(0, stop - size))):
            for at in range(low, high, _BLOCK_ROWS):
                rows = slice(at, min(at + _BLOCK_ROWS, high))
                potential[rows] = self._transform(rows, places, g)
        potential[giving.tokens] = f
        potential[receiving.tokens] = -g
        return potential, state.cursor.new_tensor(stop % size)

    def _transform(self, rows: slice, places: Tensor, g: Tensor) -> Tensor:
        """min_j (C(v, j) − g_j) for a run of tokens."""
        if self.distances is None:
            points = self.cost.points
            receivers = points[self.columns[places]]
            return (self.cost.between(points[rows], receivers) - g).amin(1)
        # All the columns, since to leave some out copies the block: the others never win.
        everywhere = g.new_full((len(self.columns),), -torch.inf).index_copy(0, places, g)
        return (self.distances[rows] - everywhere).amin(1)


def centred_deviation(cost: Tensor, a: Tensor, b: Tensor) -> float:
    """Standard deviation under a ⊗ b of the cost less its row and column means.

    Potentials take up row and column means; what is left decides the plan.
    """
    rows, columns = cost @ b, a @ cost
    centred = cost - rows.unsqueeze(1) - columns + a @ rows
    deviation = float((a @ centred.square_() @ b).sqrt())
    # With one token a side, or costs that are sums, any plan is as good: ε only has to be positive.
    return max(deviation, 1e-3 * float(cost.abs().max()), torch.finfo(torch.float32).tiny)


def coarse_potential(cost: Tensor, a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """Potential g [m] from nothing: ten scalings at each ε, falling by halves to `epsilon`."""
    g = torch.zeros_like(b)
    step = epsilon
    while step < float(cost.max()):
        step *= 2
    while step > epsilon:
        g, _ = refine(cost, a, b, g, step, 10)
        step /= 2
    return g


def refine(
    cost: Tensor, a: Tensor, b: Tensor, g: Tensor, epsilon: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Scalings of the entropic plan, started from potential `g`.

    Two hard c-transforms come first: every row and column then has an entry of exactly one in the
    kernel, so that nothing overflows and no row or column vanishes.

    Returns:
        g [m], with the convention P_ij = exp((f_i + g_j − C_ij)/ε), and the plan P [n, m], whose
        rows sum to `a`.
    """
    remaining = iterations
    while True:
        kernel = cost - g
        kernel -= kernel.amin(1, keepdim=True)
        shift = kernel.amin(0)
        kernel -= shift
        kernel = F.threshold(kernel.mul_(-1 / epsilon), _FAINTEST, -torch.inf, inplace=True).exp_()
        scale = torch.ones_like(b)
        for _ in range(min(remaining, 50)):
            rows = a / (kernel @ scale)
            scale = (b / (rows @ kernel)).clamp(1 / _LARGEST, _LARGEST)
        log_scale = scale.log()
        centred = log_scale - b @ log_scale
        g = g + shift + epsilon * centred
        remaining -= 50
        if remaining <= 0:
            scale = centred.exp()
            rows = a / (kernel @ scale)
            return g, kernel.mul_(rows.unsqueeze(1)).mul_(scale)


def feasible_cost(cost: Tensor, plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """⟨P, C⟩ of `plan` rounded to the marginals `a` and `b` (Altschuler et al., 1705.09634)."""
    plan = plan * (a / plan.sum(1)).clamp_max(1).unsqueeze(1)
    plan = plan * (b / plan.sum(0)).clamp_max(1)
    give, take = (a - plan.sum(1)).clamp_min(0), (b - plan.sum(0)).clamp_min(0)
    left = give.sum().clamp_min(torch.finfo(plan.dtype).tiny)
    return (plan * cost).sum() + give @ cost @ take / left
