"""Direct preference optimisation."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from plot_exp.config.losses import DPOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores


def dpo_loss(log_ratio_difference: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """−(1−ε) log σ(βΔ) − ε log σ(−βΔ) for each pair (arXiv 2305.18290, equation 7).

    Args:
        log_ratio_difference: [P] Δ = [s − s_ref](y_w) − [s − s_ref](y_l).

    Returns:
        [P].
    """
    logits = beta * log_ratio_difference
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)


class DPO(Term):
    """The mean of `dpo_loss` over the pairs of the optimizer's batch.

    An example with K ranked responses gives K − 1 pairs, the best against every other.
    """

    needs_reference: ClassVar[bool] = True

    def __init__(self, config: DPOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.label_smoothing = config.label_smoothing

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        log_ratio = policy.sums() - reference.sums()
        chosen, rejected = responses.pairs.unbind(-1)
        loss = dpo_loss(log_ratio[chosen] - log_ratio[rejected], self.beta, self.label_smoothing)
        return TermResult(loss.sum() / max(totals.pairs, 1))


TERM = DPO
