"""Kullback-Leibler divergence in the place of PLOT's transport."""

from __future__ import annotations

import torch
from torch import Tensor

from plot_exp.config.losses import KLConfig
from plot_exp.losses.context import Context
from plot_exp.losses.distribution import DistributionTerm


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ_v p_v log(p_v / q_v), infinite where p has mass and q has none.

    A token without mass in p adds nothing, to the gradient neither: p log p vanishes there.

    Args:
        p, q: distributions [..., V], broadcastable.

    Returns:
        [...].
    """
    p, q = torch.broadcast_tensors(p, q)
    carried = p > 0
    # Both sides of `where` are differentiated, so the logarithms must not see the zeros.
    log_p = torch.where(carried, p, 1).log()
    log_q = torch.where(carried, q, 1).log()
    return torch.where(carried, p * (log_p - log_q), 0).sum(-1)


class KL(DistributionTerm):
    """`forward`: KL(q ‖ p), finite; `reverse`: KL(p ‖ q).

    The reverse form is infinite as soon as the target has a zero on an allowed token, as it has
    with `transform=relu`: what is reported of arXiv 2604.01837. The run then ends, or leaves the
    step out, as `trainer.on_nonfinite` says.
    """

    def __init__(self, config: KLConfig, context: Context) -> None:
        super().__init__(config, context, config.weight)
        self.direction = config.direction

    def divergence(self, p: Tensor) -> Tensor:
        q = self.target_beside(p)
        return kl_divergence(q, p) if self.direction == "forward" else kl_divergence(p, q)


TERM = KL
