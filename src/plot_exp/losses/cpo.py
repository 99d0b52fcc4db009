"""Contrastive preference optimisation: DPO without a reference, and the likelihood."""

from __future__ import annotations

from plot_exp.config.losses import CPOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.losses.dpo import dpo_loss
from plot_exp.losses.sft import negative_log_likelihood
from plot_exp.ops.scores import Scores


class CPO(Term):
    """Mean over pairs of −log σ(β(s_w − s_l)), plus NLL_w (arXiv 2401.08417).

    The first part is `dpo_loss` under a uniform reference. It takes token sums, so of two
    responses the shorter one starts ahead. The likelihood is that of every chosen response of the
    optimizer's batch, in a pair or not.
    """

    def __init__(self, config: CPOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.scale = config.beta
        self.label_smoothing = config.label_smoothing
        self.sft_weight = config.sft_weight
        self.reduction = config.reduction

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        sums = policy.sums()
        chosen, rejected = responses.pairs.unbind(-1)
        loss = dpo_loss(sums[chosen] - sums[rejected], self.scale, self.label_smoothing)
        preference = loss.sum() / max(totals.pairs, 1)
        nll = negative_log_likelihood(policy, responses, totals, self.reduction)
        return TermResult(preference + self.sft_weight * nll)


TERM = CPO
