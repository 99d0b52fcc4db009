"""Alignment by optimal transport on pairs: the policy's margins dominate the reference's."""

from __future__ import annotations

from typing import ClassVar

from plot_exp.config.losses import AOTConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.losses.dominance import quantile_differences, relaxed_violation, violated_share
from plot_exp.ops.scores import Scores


class AOT(Term):
    """Mean over k of h(u_(k) − v_(k)) (arXiv 2406.05882, paired).

    u = s(y_w) − s(y_l) and v = s_ref(y_w) − s_ref(y_l) for each of the P pairs of the optimizer's
    batch, each sorted by itself; h is `relaxed_violation`.
    """

    needs_reference: ClassVar[bool] = True
    coupled: bool = True

    def __init__(self, config: AOTConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.relaxation = config.relaxation

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        chosen, rejected = responses.pairs.unbind(-1)
        sums, reference_sums = policy.sums(), reference.sums()
        margin = sums[chosen] - sums[rejected]
        reference_margin = reference_sums[chosen] - reference_sums[rejected]
        difference = quantile_differences(margin, reference_margin)
        loss = relaxed_violation(difference, self.beta, self.relaxation)
        return TermResult(
            loss.sum() / max(len(difference), 1),
            {"quantiles_violated": violated_share(margin, reference_margin)},
        )


TERM = AOT
