"""Odds-ratio preference optimisation: the likelihood, and the odds of chosen over rejected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plot_exp.config.losses import ORPOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.losses.sft import negative_log_likelihood
from plot_exp.ops.scores import Scores

# Mean log-probability from which a response counts as certain: its odds have no bound.
CERTAIN = -1e-6


def log_odds(means: Tensor) -> Tensor:
    """log p/(1 − p) of p = e^s̄ (arXiv 2403.07691, equation 4).

    Above `CERTAIN` the odds stay as they are there, without gradient: at s̄ = 0 they are infinite.

    Args:
        means: [...] s̄ ≤ 0, mean token log-probabilities.
    """
    bounded = means.clamp_max(CERTAIN)
    return bounded - torch.log(-torch.expm1(bounded))


class ORPO(Term):
    """NLL_w − λ·mean over pairs of log σ(log-odds_w − log-odds_l) (arXiv 2403.07691, equation 6).

    The likelihood is that of every chosen response of the optimizer's batch, in a pair or not, over
    its own tokens (TRL counts the prompt's too). For unlikely responses the odds are the
    probabilities, and the second part is SimPO's without a margin.
    """

    def __init__(self, config: ORPOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.odds_weight = config.odds_weight
        self.reduction = config.reduction

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        odds = log_odds(policy.means())
        chosen, rejected = responses.pairs.unbind(-1)
        loss = -F.logsigmoid(odds[chosen] - odds[rejected])
        ratio = loss.sum() / max(totals.pairs, 1)
        nll = negative_log_likelihood(policy, responses, totals, self.reduction)
        return TermResult(
            nll + self.odds_weight * ratio,
            {
                "nll": nll.detach() * self._share(responses, totals),
                "odds_ratio": loss.detach().sum() / max(len(loss), 1),
            },
        )

    def _share(self, responses: Responses, totals: Totals) -> Tensor:
        """The factor from a part's share of the batch's likelihood to the part's own mean."""
        if self.reduction == "token":
            whole, own = totals.tokens["chosen"], responses.length[responses.chosen].sum()
        else:
            whole, own = totals.responses["chosen"], responses.chosen.sum()
        return whole / own.clamp_min(1)


TERM = ORPO
