"""What PLOT and the divergences share: the model's token distribution, and the target."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from plot_exp.config.losses import DistributionConfig
from plot_exp.data.collate import Responses
from plot_exp.data.preference_distribution import difference, target
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Request, Scores, Side
from plot_exp.ot.mass import restrict


class DistributionTerm(Term):
    """A divergence of the model's token distribution p from the preference distribution q.

    p is the softmax at the response positions of one side or both, averaged over the optimizer's
    batch (`distribution=batch`, coupled), over each response, or left at each position; the mean
    of the divergences is taken. Mass on special, padding and unused tokens is removed and p
    renormalised. q is the preference distribution of the training responses (arXiv 2604.01837;
    a reconstruction: the paper leaves the transform open).

    Class attributes:
        measure: what the value is called in the log, `train/<term>/<measure>`.

    Attributes:
        target: [V] q, fp64; no buffer, since a module in half precision rounds its buffers.
        allowed: [V] bool, the tokens that may carry mass.
    """

    auxiliary: ClassVar[bool] = True
    measure: ClassVar[str] = "divergence"

    target: Tensor
    allowed: Tensor

    def __init__(self, config: DistributionConfig, context: Context, weight: float) -> None:
        super().__init__(weight)
        self.gradient_share = config.gradient_share
        self.gradient_share_every = config.gradient_share_every
        self.schedule = config.schedule
        self.pool = config.distribution
        self.coupled = self.pool == "batch"
        self.sides = sides(config.side)
        self.request = Request(frozenset((side, self.pool) for side in self.sides))
        self.register_buffer("allowed", context.allowed_tokens(), persistent=False)
        self.target = preference_target(config, context)

    def divergence(self, p: Tensor) -> Tensor:
        """The divergence [...] of distributions p [..., V] over the allowed tokens."""
        raise NotImplementedError

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        parts = [policy.distributions[(side, self.pool)] for side in self.sides]
        mass = torch.stack(parts).sum(0) if self.pool == "batch" else torch.cat(parts)
        if not self._count(totals) or not len(mass):
            # A batch, or part of one, without a response of these sides has no distribution.
            value = 0 * mass.sum()
            return TermResult(value, {self.measure: value.detach()})
        if self.pool == "batch":
            value = self.divergence(self.restrict(mass))
            return TermResult(value, {self.measure: value.detach(), **self.details()})
        values = self.divergence(self.restrict(mass))
        return TermResult(
            values.sum() / self._count(totals),
            {self.measure: values.detach().mean(), **self.details()},
        )

    def details(self) -> dict[str, Tensor]:
        """Further scalars about the last divergence, logged beside it."""
        return {}

    def restrict(self, mass: Tensor) -> Tensor:
        """Masses [..., V] of any total as distributions over the allowed tokens."""
        return restrict(mass, self.allowed.to(mass.device))

    def target_beside(self, p: Tensor) -> Tensor:
        """The target [V] on the device and in the precision of p."""
        if self.target.device != p.device:
            self.target = self.target.to(p.device)
        return self.target.to(p.dtype)

    def _count(self, totals: Totals) -> int:
        """Responses or positions of the sides in use, over the optimizer's whole batch."""
        by_side = totals.tokens if self.pool == "position" else totals.responses
        return sum(by_side[side] for side in self.sides)


def sides(name: str) -> tuple[Side, ...]:
    """The sides that `chosen`, `rejected` or `both` names."""
    if name == "both":
        return ("chosen", "rejected")
    return ("chosen",) if name == "chosen" else ("rejected",)


def preference_target(config: DistributionConfig, context: Context) -> Tensor:
    """The target distribution [V] that the configured choices give, in fp64."""
    allowed = context.allowed_tokens()
    signed = difference(
        context.token_counts(),
        allowed,
        smoothing=config.smoothing,
        significance=config.significance,
    )
    anchor = context.reference_distribution() if config.anchor == "reference" else None
    return target(
        signed, config.transform, config.temperature, allowed, anchor, config.anchor_gamma
    )
