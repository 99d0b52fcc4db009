"""Simple preference optimisation: mean log-probabilities apart by a margin, no reference."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from plot_exp.config.losses import SimPOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores


def simpo_loss(mean_difference: Tensor, beta: float, gamma: float) -> Tensor:
    """−log σ(β(s̄_w − s̄_l) − γ) for each pair (arXiv 2405.14734, equation 6).

    Args:
        mean_difference: [P] s̄_w − s̄_l, of mean token log-probabilities.

    Returns:
        [P].
    """
    return -F.logsigmoid(beta * mean_difference - gamma)


class SimPO(Term):
    """The mean of `simpo_loss` over the pairs of the optimizer's batch.

    Nothing holds the policy near its start but the learning rate. Two equal responses leave the
    constant −log σ(−γ) without gradient.
    """

    def __init__(self, config: SimPOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.scale = config.beta
        self.gamma = config.gamma

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        means = policy.means()
        chosen, rejected = responses.pairs.unbind(-1)
        loss = simpo_loss(means[chosen] - means[rejected], self.scale, self.gamma)
        return TermResult(loss.sum() / max(totals.pairs, 1))


TERM = SimPO
