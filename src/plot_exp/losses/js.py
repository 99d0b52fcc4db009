"""Jensen-Shannon divergence in the place of PLOT's transport."""

from __future__ import annotations

from torch import Tensor

from plot_exp.config.losses import JSConfig
from plot_exp.losses.context import Context
from plot_exp.losses.distribution import DistributionTerm
from plot_exp.losses.kl import kl_divergence


class JS(DistributionTerm):
    """½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2; between 0 and log 2.

    arXiv 2604.01837 reports infinite values, so its JS has a form of its own, which is not known.
    """

    def __init__(self, config: JSConfig, context: Context) -> None:
        super().__init__(config, context, config.weight)

    def divergence(self, p: Tensor) -> Tensor:
        q = self.target_beside(p)
        middle = (p + q) / 2
        return (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2


TERM = JS
