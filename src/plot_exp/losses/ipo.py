"""Identity preference optimisation: a margin to reach, not one to grow for ever."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from plot_exp.config.losses import IPOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores


def ipo_loss(log_ratio_difference: Tensor, beta: float) -> Tensor:
    """(Δ − 1/(2β))² for each pair (arXiv 2310.12036, equation 17; β is its τ).

    Args:
        log_ratio_difference: [P] Δ, of token sums or of token means.

    Returns:
        [P].
    """
    return (log_ratio_difference - 1 / (2 * beta)).square()


class IPO(Term):
    """The mean of `ipo_loss` over the pairs of the optimizer's batch.

    `reduction=sum` takes the log-ratios of whole responses, as the paper writes them, `mean`
    divides each by its response's length, as TRL's `ipo` does; a β fit for one is not for the
    other. At the reference the gradient in Δ is −1/β and past the target it turns round. Two equal
    responses leave a constant without gradient.
    """

    needs_reference: ClassVar[bool] = True

    def __init__(self, config: IPOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.reduction = config.reduction

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        log_ratio = policy.sums() - reference.sums()
        if self.reduction == "mean":
            log_ratio = log_ratio / policy.length
        chosen, rejected = responses.pairs.unbind(-1)
        loss = ipo_loss(log_ratio[chosen] - log_ratio[rejected], self.beta)
        return TermResult(loss.sum() / max(totals.pairs, 1))


TERM = IPO
