"""Kahneman-Tversky optimisation: labelled responses against a common reference point."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from plot_exp.config.losses import KTOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores


class KTO(Term):
    """Mean over responses of w(1 − value) (arXiv 2402.01306).

    The value is σ(β(h − z)) of a desirable (or chosen) response and σ(β(z − h)) of an undesirable
    (or rejected) one, h = s − s_ref. z = max(0, mean of s − s_ref over mismatched prompts and
    responses) estimates the divergence of the policy from the reference; it is detached, and that
    of the optimizer's whole batch in every coupling. Of a ranking the best is desirable and every
    other one undesirable.

    With one prompt in the batch nothing can be mismatched, and z is 0. A response far on the right
    or on the wrong side has no gradient: the value is flat at both ends.
    """

    needs_reference: ClassVar[bool] = True
    needs_mismatched: ClassVar[bool] = True

    def __init__(self, config: KTOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.desirable_weight = config.desirable_weight
        self.undesirable_weight = config.undesirable_weight

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        log_ratio = policy.sums() - reference.sums()
        point = reference_point(log_ratio, totals)
        # 1 − σ(x) = σ(−x), without cancellation.
        desirable = torch.sigmoid(self.beta * (point - log_ratio[responses.chosen]))
        undesirable = torch.sigmoid(self.beta * (log_ratio[responses.rejected] - point))
        loss = self.desirable_weight * desirable.sum() + self.undesirable_weight * undesirable.sum()
        count = totals.responses["chosen"] + totals.responses["rejected"]
        return TermResult(loss / max(count, 1), {"z": point})


def reference_point(like: Tensor, totals: Totals) -> Tensor:
    """z, a scalar in the precision of `like`."""
    if totals.mismatched is None:
        return like.new_zeros(())
    return totals.mismatched.to(like).clamp_min(0)


TERM = KTO
