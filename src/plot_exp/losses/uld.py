"""Universal logit distillation's distance in the place of PLOT's: transport without embeddings."""

from __future__ import annotations

from torch import Tensor

from plot_exp.config.losses import ULDConfig
from plot_exp.losses.context import Context
from plot_exp.losses.distribution import DistributionTerm


class ULD(DistributionTerm):
    """‖sort p − sort q‖₁ (arXiv 2402.12030): Wasserstein-1 where every two tokens cost the same.

    It compares how mass is spread, not on which tokens: any permutation of q costs nothing.
    """

    def __init__(self, config: ULDConfig, context: Context) -> None:
        super().__init__(config, context, config.weight)

    def divergence(self, p: Tensor) -> Tensor:
        goal = self.target_beside(p).sort().values
        return (p.sort(-1).values - goal).abs().sum(-1)


TERM = ULD
