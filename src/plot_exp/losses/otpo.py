"""DPO on weighted tokens: transport between the two responses says how much each one counts."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from plot_exp.config.losses import OTPOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Request, Scores
from plot_exp.ot.unbalanced import unbalanced_plan


@torch.no_grad()
def token_weights(
    chosen: Tensor, rejected: Tensor, epsilon: float, mass_penalty: float
) -> tuple[Tensor, Tensor]:
    """How much each token of two responses counts (arXiv 2505.18720).

    The row and column sums of the unbalanced plan between their hidden states, in which every
    token has mass one and the cost is the Euclidean distance over the largest one, divided by
    mass/min(n_w, n_l).

    Args:
        chosen, rejected: [n_w, D], [n_l, D].

    Returns:
        [n_w], [n_l]; each sums to min(n_w, n_l).
    """
    cost = torch.cdist(chosen, rejected, compute_mode="donot_use_mm_for_euclid_dist")
    largest = cost.max()
    plan = unbalanced_plan(torch.where(largest > 0, cost / largest, cost), epsilon, mass_penalty)
    scale = plan.sum() / min(plan.shape)
    return plan.sum(1) / scale, plan.sum(0) / scale


class OTPO(Term):
    """Mean over pairs of −log σ(β(Σ_t ω_w r_w − Σ_t ω_l r_l)), r the log-ratio of a token.

    The hidden states are the policy's, detached, from which the tokens are predicted, as in the
    source's own code; its weights serve for the reference too. Two equal responses weigh their
    tokens alike, and with one token against several that one weighs 1.
    """

    needs_reference: ClassVar[bool] = True

    def __init__(self, config: OTPOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.epsilon = config.epsilon
        self.mass_penalty = config.mass_penalty
        self.request = Request(tokens=frozenset({"predicting_hidden"}))

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        lengths = policy.length.tolist()
        log_ratios = (policy.token_logps - reference.token_logps).split(lengths)
        states = policy.tokens["predicting_hidden"].detach().to(policy.token_logps).split(lengths)
        margins = [policy.token_logps[:0]]
        for chosen, rejected in responses.pairs.tolist():
            weights = token_weights(
                states[chosen], states[rejected], self.epsilon, self.mass_penalty
            )
            # Not as a product of vectors, which mixed precision would take in bf16.
            gained = (weights[0] * log_ratios[chosen]).sum()
            margins.append((gained - (weights[1] * log_ratios[rejected]).sum())[None])
        loss = -F.logsigmoid(self.beta * torch.cat(margins))
        return TermResult(loss.sum() / max(totals.pairs, 1))


TERM = OTPO
