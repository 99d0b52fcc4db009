"""PLOT's transports: along lines, or in the full embedding cost with its solvers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from plot_exp.config.losses import PLOTConfig
from plot_exp.ot.costs import Cost, build_cost
from plot_exp.ot.dual import DualState, DualStep, DualTransport
from plot_exp.ot.exact import exact_distance
from plot_exp.ot.geometry import build_transport
from plot_exp.ot.sinkhorn import sinkhorn_distance


class Transport(Protocol):
    """Transport to a fixed target."""

    def distance(self, p: Tensor, q: Tensor) -> Tensor:
        """Transport [...] from p [..., V] to q [V], differentiable in p."""
        ...

    def to(self, device: torch.device | str) -> Any:
        """The same on another device."""
        ...


@dataclass(frozen=True)
class FullCostTransport:
    """Transport of the residuals in the full cost, solved anew each time."""

    cost: Cost
    solve: Callable[[Tensor, Tensor, Cost], Tensor]

    def distance(self, p: Tensor, q: Tensor) -> Tensor:
        """See `Transport`."""
        return self.solve(p, q, self.cost)

    def to(self, device: torch.device | str) -> FullCostTransport:
        """See `Transport`."""
        return replace(self, cost=self.cost.to(device))


class CarriedPotentials(nn.Module):
    """Transport by potentials that are carried from step to step, in checkpoints too.

    They move on only where a gradient is wanted: a validation does not change the training.

    Args:
        cost: the cost between tokens.
        target: q [V].
        options: of `DualTransport`.
    """

    def __init__(self, cost: Cost, target: Tensor, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.cost, self.target = cost, target
        self.solver: DualTransport | None = None
        self.state = DualState.start(len(target))
        self.last: DualStep | None = None

    def distance(self, p: Tensor, q: Tensor) -> Tensor:
        """See `Transport`; p is one distribution [V], q the target that this was built for."""
        if self.solver is None or self.solver.target.device != p.device:
            target = self.target.to(p.device)
            self.solver = DualTransport(self.cost.to(p.device), target, **self.options)
        state = replace(self.state, potential=self.state.potential.to(p.device))
        self.last = self.solver.step(p, state, with_upper=True)
        if p.requires_grad:
            self.state = self.last.state
        return self.last.distance

    def details(self) -> dict[str, Tensor]:
        """Of the last value, a lower bound: an upper one, their relative gap, what was carried."""
        if self.last is None or self.last.upper is None:
            return {}
        upper = self.last.upper.detach()
        tiny = torch.finfo(upper.dtype).tiny
        giving, receiving = self.last.carried
        return {
            "upper": upper,
            "gap": (upper - self.last.distance.detach()) / upper.clamp_min(tiny),
            "carried_giving": giving,
            "carried_receiving": receiving,
            "marginal_error": upper.new_tensor(self.last.error),
        }

    def get_extra_state(self) -> dict[str, Tensor]:
        """The potentials, for a checkpoint."""
        return self.state.state_dict()

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes the potentials back."""
        self.state = DualState(**state)


def transport_for(
    config: PLOTConfig, embedding: Tensor, allowed: Tensor, token_mass: Tensor, target: Tensor
) -> Transport:
    """The transport that the section describes, built once before training.

    Args:
        embedding: frozen token embeddings [V, D].
        allowed: [V] bool, the tokens that may carry mass.
        token_mass: [V], the tokens' mass in the training responses.
        target: q [V].

    Raises:
        ValueError: the options do not fit the embedding or the target.
    """
    if config.transport in ("line", "path", "sliced"):
        return build_transport(
            embedding,
            transport=config.transport,
            line=config.line,
            scale=config.scale,
            normalise=config.normalise,
            directions=config.directions,
            sliced_reduction=config.sliced_reduction,
            allowed=allowed,
            token_mass=token_mass,
            target=target,
        )
    cost = build_cost(
        embedding,
        transforms=("normalised", *config.cost_transforms)
        if config.normalise
        else config.cost_transforms,
        shape=config.cost_shape,
        parameter=config.cost_parameter,
        norm=config.cost_norm,
        distance=config.cost_distance,
        neighbours=config.cost_neighbours,
        scale=config.scale,
        allowed=allowed,
        token_mass=token_mass,
        target=target,
    )
    if cost.distance is not None and config.transport != "dual":
        raise ValueError(
            f"cost_distance={config.cost_distance} has no points between tokens, and "
            f"transport={config.transport} sums up light tokens at one: use transport=dual"
        )
    epsilon = {} if config.epsilon is None else {"epsilon": config.epsilon}
    if config.transport == "exact":
        return FullCostTransport(cost, partial(exact_distance, limit=config.limit))
    if config.transport == "sinkhorn":
        options: dict[str, Any] = {"limit": config.limit, "debiased": config.debiased, **epsilon}
        return FullCostTransport(cost, partial(sinkhorn_distance, **options))
    carried: dict[str, Any] = {"limit": config.limit, "iterations": config.iterations, **epsilon}
    return CarriedPotentials(cost, target, **carried)
