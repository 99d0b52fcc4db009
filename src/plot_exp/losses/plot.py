"""PLOT: optimal transport of the model's token distribution to the preference distribution."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from plot_exp.config.losses import PLOTConfig
from plot_exp.data.collate import Responses
from plot_exp.data.preference_distribution import difference, target
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Request, Scores, Side
from plot_exp.ot.geometry import LineTransport, build_transport
from plot_exp.ot.mass import restrict


class PLOT(Term):
    """Wasserstein-1 between the model's token distribution p and the target q.

    p is the softmax at the response positions of one side or both, averaged over the optimizer's
    batch (`distribution=batch`, coupled), over each response, or left at each position; the mean
    of the distances is taken. Mass on special, padding and unused tokens is removed and p
    renormalised. q is the preference distribution of the training responses (arXiv 2604.01837;
    a reconstruction: the paper leaves the transform, the projection and the scale open).

    Attributes:
        target: [V] q, fp32 as it enters the loss.
        allowed: [V] bool, the tokens that may carry mass.
    """

    auxiliary: ClassVar[bool] = True

    target: Tensor
    allowed: Tensor

    def __init__(self, config: PLOTConfig, context: Context) -> None:
        super().__init__(config.alpha)
        self.pool = config.distribution
        self.coupled = self.pool == "batch"
        self.sides: tuple[Side, ...] = (
            ("chosen", "rejected") if config.side == "both" else (config.side,)
        )
        self.request = Request(frozenset((side, self.pool) for side in self.sides))
        allowed = context.allowed_tokens()
        self.register_buffer("allowed", allowed, persistent=False)
        goal = preference_target(config, context)
        self.register_buffer("target", goal, persistent=False)
        self.transport: LineTransport = build_transport(
            _embedding(config, context),
            transport=config.transport,
            line=config.line,
            scale=config.scale,
            normalise=config.normalise,
            directions=config.directions,
            sliced_reduction=config.sliced_reduction,
            allowed=allowed,
            token_mass=context.token_counts().mass(allowed),
            target=goal,
        )
        self._device = goal.device

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        parts = [policy.distributions[(side, self.pool)] for side in self.sides]
        if self.pool == "batch":
            p = self.restrict(torch.stack(parts).sum(0))
            distance = self.distance(p)
            return TermResult(distance, {"distance": distance.detach()})
        distances = self.distance(self.restrict(torch.cat(parts)))
        return TermResult(
            distances.sum() / max(self._count(totals), 1),
            {"distance": distances.detach().mean()},
        )

    def restrict(self, mass: Tensor) -> Tensor:
        """Masses [..., V] of any total as distributions over the allowed tokens."""
        return restrict(mass, self.allowed.to(mass.device))

    def distance(self, p: Tensor) -> Tensor:
        """Transport [...] from distributions p [..., V] to the target."""
        if self._device != p.device:
            self.transport, self._device = self.transport.to(p.device), p.device
        return self.transport.distance(p, self.target.to(p.device, p.dtype))

    def _count(self, totals: Totals) -> int:
        """Responses or positions of the sides in use, over the optimizer's whole batch."""
        by_side = totals.tokens if self.pool == "position" else totals.responses
        return sum(by_side[side] for side in self.sides)


def preference_target(config: PLOTConfig, context: Context) -> Tensor:
    """The target distribution [V] that the configured choices give, in fp32."""
    allowed = context.allowed_tokens()
    signed = difference(
        context.token_counts(),
        allowed,
        smoothing=config.smoothing,
        significance=config.significance,
    )
    anchor = context.reference_distribution() if config.anchor == "reference" else None
    goal = target(
        signed, config.transform, config.temperature, allowed, anchor, config.anchor_gamma
    )
    return goal.float()


def _embedding(config: PLOTConfig, context: Context) -> Tensor:
    if config.embedding == "output":
        return context.output_embedding()
    return context.input_embedding()


TERM = PLOT
