"""Token-level DPO: the divergence from the reference at every token counts in the margin."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F

from plot_exp.config.losses import TDPOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Request, Scores


class TDPO(Term):
    """Mean over pairs of −log σ(β[Δ + a(SeqKL_w − SeqKL_l)]) (arXiv 2404.11999).

    SeqKL = Σ_t KL(π_ref ‖ π_θ) along a response. Variant 1 has a = 1; variant 2 stops the gradient
    through SeqKL_w, so that only the rejected response's divergence is held down.

    The divergences need the reference's whole distribution at every token. At the reference they
    and their gradients vanish: the first step is DPO's.
    """

    needs_reference: ClassVar[bool] = True

    def __init__(self, config: TDPOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.beta: float = config.beta
        self.stops = config.variant == 2
        self.a = config.a if self.stops else 1.0
        self.request = Request(tokens=frozenset({"reference_kl"}))

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        assert reference is not None
        log_ratio = policy.sums() - reference.sums()
        divergence = policy.per_response(policy.tokens["reference_kl"])
        chosen, rejected = responses.pairs.unbind(-1)
        of_chosen, of_rejected = divergence[chosen], divergence[rejected]
        if self.stops:
            of_chosen = of_chosen.detach()
        margin = log_ratio[chosen] - log_ratio[rejected] + self.a * (of_chosen - of_rejected)
        loss = -F.logsigmoid(self.beta * margin)
        count = max(len(loss), 1)
        return TermResult(
            loss.sum() / max(totals.pairs, 1),
            {
                "kl_chosen": of_chosen.detach().sum() / count,
                "kl_rejected": of_rejected.detach().sum() / count,
            },
        )


TERM = TDPO
