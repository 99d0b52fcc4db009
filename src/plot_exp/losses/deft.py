"""DEFT: reward for log-probability on the tokens that the preferred responses favour."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from plot_exp.config.losses import DEFTConfig
from plot_exp.data.collate import Responses
from plot_exp.data.preference_distribution import difference
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.losses.distribution import sides
from plot_exp.ops.scores import Request, Scores


def distribution_reward(mean_logps: Tensor, signed: Tensor, floor: float = -torch.inf) -> Tensor:
    """R = Σ_v Q_diff[v]·mean_t log p(v | x, y_<t) (arXiv 2604.01787).

    Args:
        mean_logps: [..., V] log-probabilities averaged over positions.
        signed: [V] Q_diff.
        floor: where Q_diff < 0 the mean is taken as no lower than this. Without one, −R has no
            lower bound: Q_diff[v]·log p_v grows without end as p_v falls to zero.

    Returns:
        [...].
    """
    # Tokens without a preference may have log-probability −∞, and 0 · ∞ is not a number.
    tokens = signed.nonzero().squeeze(-1)
    weight = signed[tokens].to(mean_logps.dtype)
    logps = mean_logps[..., tokens]
    logps = torch.where(weight < 0, logps.clamp_min(floor), logps)
    return (weight * logps).sum(-1)


class DEFT(Term):
    """−R over the response positions of one side or both of the optimizer's batch.

    The floor is a reconstruction, as is everything but the formula of R. It acts on the mean over
    the batch, so the term is coupled.

    Attributes:
        signed: [V] Q_diff, fp64; no buffer, since a module in half precision rounds its buffers.
    """

    auxiliary: ClassVar[bool] = True
    coupled: bool = True

    signed: Tensor

    def __init__(self, config: DEFTConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.gradient_share = config.gradient_share
        self.gradient_share_every = config.gradient_share_every
        self.schedule = config.schedule
        self.floor = config.floor
        self.sides = sides(config.side)
        self.request = Request(frozenset((side, "log_batch") for side in self.sides))
        self.signed = signed_difference(config, context)

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        total = torch.stack([policy.distributions[(side, "log_batch")] for side in self.sides])
        positions = sum(totals.tokens[side] for side in self.sides)
        mean_logps = total.sum(0) / max(positions, 1)
        if self.signed.device != mean_logps.device:
            self.signed = self.signed.to(mean_logps.device)
        reward = distribution_reward(mean_logps, self.signed, self.floor)
        floored = (mean_logps[self.signed < 0] < self.floor).to(mean_logps.dtype)
        return TermResult(
            -reward,
            {
                "reward": reward.detach(),
                "floored": floored.sum() / max(len(floored), 1),
            },
        )


def signed_difference(config: DEFTConfig, context: Context) -> Tensor:
    """Q_diff [V] of the training responses, with the term's smoothing and significance.

    Raises:
        ValueError: one side has no allowed token, or Q_diff is zero everywhere.
    """
    signed = difference(
        context.token_counts(),
        context.allowed_tokens(),
        smoothing=config.smoothing,
        significance=config.significance,
    )
    if not bool(signed.any()):
        raise ValueError(
            "chosen and rejected responses use every token equally often (or no difference is "
            "significant): there is no token to reward"
        )
    return signed


TERM = DEFT
