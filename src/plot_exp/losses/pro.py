"""Preference ranking optimisation."""

from __future__ import annotations

import torch
from torch import Tensor

from plot_exp.config.losses import PROConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores


def ranking_loss(means: Tensor, scores: Tensor) -> Tensor:
    """Σ_{k<K−1} logsumexp(s̄_k τ_kk, s̄_i τ_ki for i > k) − s̄_k τ_kk (arXiv 2306.17492).

    τ_ki = r_k − r_i and τ_kk = max_{i>k} τ_ki; without scores every τ is 1. Equal scores give
    τ = 0, hence no gradient.

    Args:
        means: [B, K] s̄, the mean token log-probability of each response, best first.
        scores: [B, K] r, NaN for an example without scores.

    Returns:
        [B].
    """
    loss = means.new_zeros(len(means))
    unscored = scores.isnan().any(-1, keepdim=True)
    for best in range(means.shape[1] - 1):
        gaps = scores[:, best : best + 1] - scores[:, best + 1 :]
        temperature = torch.where(unscored, 1.0, gaps).to(means.dtype)
        own = means[:, best] * temperature.amax(-1)
        others = means[:, best + 1 :] * temperature
        loss = loss + torch.logsumexp(torch.cat([own[:, None], others], -1), -1) - own
    return loss


class PRO(Term):
    """Mean over the rankings of the optimizer's batch of `ranking_loss` + w·(K − 1)²·(−s(y_0)).

    Works without a reference, for rankings of different sizes in one batch; an example with one
    response has nothing to rank and does not count.
    """

    def __init__(self, config: PROConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.sft_weight = config.sft_weight
        self.uses_scores = config.scores

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        sums, means = policy.sums(), policy.means()
        scores = (
            responses.score if self.uses_scores else torch.full_like(responses.score, torch.nan)
        )
        # Adds nothing; without any ranking the zero still hangs on the policy's scores.
        loss = 0.0 * sums[:0].sum()
        for rows in rankings(responses):
            likelihood = (rows.shape[1] - 1) ** 2 * -sums[rows[:, 0]]
            found = ranking_loss(means[rows], scores[rows]) + self.sft_weight * likelihood
            loss = loss + found.sum()
        return TermResult(loss / max(totals.rankings, 1))


def rankings(responses: Responses) -> list[Tensor]:
    """Ranked responses as rows [B_K, K] of indices into R, best first, one tensor for each K ≥ 2.

    The pairs of one ranking stand together and in its order.
    """
    _, place, counts = responses.pairs[:, 0].unique(return_inverse=True, return_counts=True)
    found = []
    for others in counts.unique().tolist():
        pairs = responses.pairs[counts[place] == others].reshape(-1, others, 2)
        found.append(torch.cat([pairs[:, :1, 0], pairs[:, :, 1]], -1))
    return found


TERM = PRO
