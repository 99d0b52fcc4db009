"""DPO-Positive: DPO that does not let the chosen response become less likely."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from plot_exp.config.losses import DPOPConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores


def dpop_loss(chosen: Tensor, rejected: Tensor, beta: float, penalty: float) -> Tensor:
    """−log σ(β[Δ − λ max(0, (s_ref − s)(y_w))]) for each pair (arXiv 2402.13228).

    Args:
        chosen, rejected: [P] log-ratios s − s_ref.

    Returns:
        [P].
    """
    fallen = F.relu(-chosen)
    return -F.logsigmoid(beta * (chosen - rejected - penalty * fallen))


class DPOP(Term):
    """The mean of `dpop_loss` over the pairs of the optimizer's batch.

    DPO while no chosen response is less likely than under the reference, the kink itself included.
    Below it the margin loses λ for each nat: with λ = 50 that outweighs anything else, so a step
    that lowers a chosen response is undone before the margin counts again.
    """

    needs_reference: ClassVar[bool] = True

    def __init__(self, config: DPOPConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.penalty = config.penalty

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        log_ratio = policy.sums() - reference.sums()
        chosen, rejected = log_ratio[responses.pairs].unbind(-1)
        loss = dpop_loss(chosen, rejected, self.beta, self.penalty)
        fallen = (chosen.detach() < 0).to(loss.dtype)
        return TermResult(
            loss.sum() / max(totals.pairs, 1), {"fallen": fallen.sum() / max(len(fallen), 1)}
        )


TERM = DPOP
