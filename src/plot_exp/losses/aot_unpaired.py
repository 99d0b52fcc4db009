"""Alignment by optimal transport without pairs: chosen log-ratios dominate the rejected ones'."""

from __future__ import annotations

from typing import ClassVar

from plot_exp.config.losses import AOTUnpairedConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.losses.dominance import quantile_differences, relaxed_violation, violated_share
from plot_exp.ops.scores import Scores


class AOTUnpaired(Term):
    """Mean over quantiles of h(F⁻¹_w − F⁻¹_l) (arXiv 2406.05882, unpaired).

    F_w and F_l are the distributions of s − s_ref over the chosen (or desirable) and the rejected
    (or undesirable) responses of the optimizer's batch. They may answer different prompts and
    differ in number, then the fewer ones' quantiles are interpolated.
    """

    needs_reference: ClassVar[bool] = True
    coupled: bool = True

    def __init__(self, config: AOTUnpairedConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.relaxation = config.relaxation

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        log_ratio = policy.sums() - reference.sums()
        chosen, rejected = log_ratio[responses.chosen], log_ratio[responses.rejected]
        difference = quantile_differences(chosen, rejected)
        loss = relaxed_violation(difference, self.beta, self.relaxation)
        return TermResult(
            loss.sum() / max(len(difference), 1),
            {"quantiles_violated": violated_share(chosen, rejected)},
        )


TERM = AOTUnpaired
