"""Squared error in the place of PLOT's transport: finite, and without geometry."""

from __future__ import annotations

from torch import Tensor

from plot_exp.config.losses import MSEConfig
from plot_exp.losses.context import Context
from plot_exp.losses.distribution import DistributionTerm


class MSE(DistributionTerm):
    """Σ_v (p_v − q_v)², divided by V with `reduction=mean`.

    Probabilities are of the order 1/V, so the mean falls with V² and more: over a large vocabulary
    it needs a large weight, or `gradient_share`.
    """

    def __init__(self, config: MSEConfig, context: Context) -> None:
        super().__init__(config, context, config.weight)
        self.divisor = context.vocab_size if config.reduction == "mean" else 1

    def divergence(self, p: Tensor) -> Tensor:
        return (p - self.target_beside(p)).square().sum(-1) / self.divisor


TERM = MSE
