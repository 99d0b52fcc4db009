"""Supervised fine-tuning on the chosen responses."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plot_exp.config.losses import SFTConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores


def negative_log_likelihood(
    policy: Scores, responses: Responses, totals: Totals, reduction: Literal["token", "sequence"]
) -> Tensor:
    """Negative log-likelihood of the chosen responses, a scalar.

    `token`: −Σ_w s(y_w) / Σ_w |y_w| over the optimizer's whole batch.
    `sequence`: the mean over responses of −s(y_w) / |y_w|.
    """
    chosen = responses.chosen
    if reduction == "token":
        return -of_chosen(policy.sums(), chosen) / max(totals.tokens["chosen"], 1)
    return -of_chosen(policy.means(), chosen) / max(totals.responses["chosen"], 1)


def of_chosen(values: Tensor, chosen: Tensor) -> Tensor:
    """The sum over the chosen responses, without a size that the host would have to wait for."""
    return torch.where(chosen, values, 0.0).sum()


class SFT(Term):
    """`negative_log_likelihood`, per token or per response."""

    def __init__(self, config: SFTConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.reduction = config.reduction

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        return TermResult(negative_log_likelihood(policy, responses, totals, self.reduction))


TERM = SFT
