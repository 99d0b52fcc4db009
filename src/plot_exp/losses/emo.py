"""Earth mover's distance from each predicted distribution to its label, beside the likelihood."""

from __future__ import annotations

from torch import Tensor

from plot_exp.config.losses import EMOConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.ops.embedding import FrozenEmbedding
from plot_exp.ops.scores import Request, Scores

# Smallest distance that a factor is taken over: below it, rounding would set the factor.
SMALLEST = 1e-6


def emo_loss(nll: Tensor, distance: Tensor, cap: float | None) -> Tensor:
    """½(MLE + sg(MLE/EMO)·EMO) at each token (arXiv 2310.04691).

    Args:
        nll: [N] −log p(y).
        distance: [N] Σ_v p_v(1 − cos(e_v, e_y)).
        cap: largest factor MLE/EMO; None for none.

    Returns:
        [N]; where nothing is capped its value is that of `nll`, its gradient is not.
    """
    factor = nll.detach() / distance.detach().clamp_min(SMALLEST)
    if cap is not None:
        factor = factor.clamp_max(cap)
    return (nll + factor * distance) / 2


class EMO(Term):
    """Mean of `emo_loss` over the tokens of the chosen responses of the optimizer's batch.

    Against a one-hot label the distance is linear in p, so it has no minimum but the label, or
    another token in the same direction. Tokens close to the label cost little: synonyms are free
    where the likelihood punishes them.
    """

    def __init__(self, config: EMOConfig, context: Context) -> None:
        super().__init__(config.weight)
        self.cap = config.cap
        self.gradient_share = config.gradient_share
        self.gradient_share_every = config.gradient_share_every
        output = config.embedding == "output"
        vectors = context.output_embedding() if output else context.input_embedding()
        self.request = Request(tokens=frozenset({"label_cost"}), embedding=FrozenEmbedding(vectors))

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        of_chosen = responses.chosen[policy.response_of_token]
        distance = policy.tokens["label_cost"][of_chosen]
        loss = emo_loss(-policy.token_logps[of_chosen], distance, self.cap)
        return TermResult(
            loss.sum() / max(totals.tokens["chosen"], 1),
            {"distance": distance.detach().sum() / max(len(distance), 1)},
        )


TERM = EMO
