"""The one function between a model and the losses: a batch in, `Scores` out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.ops.scores import SUMMED_POOLS, Pool, Request, Scores, Side, TokenOutput


@dataclass(frozen=True)
class ReferenceStates:
    """What the reference's distributions at the response positions are made from.

    Attributes:
        hidden: [N, D] its `predicting_hidden` of the same batch.
        head: maps them to its logits [N, V].
    """

    hidden: Tensor
    head: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def logps(self) -> Tensor:
        """[N, V] log-probabilities; no gradient goes to the reference."""
        return torch.log_softmax(self.head(self.hidden), dim=-1)


def score(
    backbone: nn.Module,
    head: Callable[[Tensor], Tensor],
    batch: Batch,
    request: Request,
    reference: ReferenceStates | None = None,
) -> Scores:
    """Scores the responses of a batch.

    Only hidden states that predict a response token go through the head; log-probabilities are
    taken in fp32 whatever the model's precision.

    Args:
        backbone: maps input ids to hidden states [rows, T, D].
        head: maps hidden states [N, D] to logits [N, V].
        reference: read for `reference_kl`.

    Raises:
        ValueError: `reference_kl` is asked for without a reference.
    """
    if "reference_kl" in request.tokens and reference is None:
        raise ValueError("reference_kl needs the reference's states")
    hidden = backbone(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    hidden = hidden.reshape(-1, hidden.shape[-1])
    predicting = hidden[batch.predict_index]
    logps = torch.log_softmax(head(predicting), dim=-1)
    token_logps = logps.gather(-1, batch.targets[:, None]).squeeze(-1)
    distributions = {
        key: pooled_distribution(logps, batch, *key) for key in sorted(request.distributions)
    }
    tokens: dict[TokenOutput, Tensor] = {}
    if "hidden" in request.tokens:
        tokens["hidden"] = hidden[own_index(batch)]
    if "predicting_hidden" in request.tokens:
        tokens["predicting_hidden"] = predicting
    if "entropy" in request.tokens:
        tokens["entropy"] = -(logps.exp() * logps).sum(-1)
    if "reference_kl" in request.tokens and reference is not None:
        of_reference = reference.logps().to(logps.dtype)
        tokens["reference_kl"] = (of_reference.exp() * (of_reference - logps)).sum(-1)
    if "label_cost" in request.tokens and request.embedding is not None:
        unit = request.embedding.beside(logps)
        tokens["label_cost"] = (logps.exp() * (1 - unit[batch.targets] @ unit.T)).sum(-1)
    return Scores(
        token_logps, batch.response_of_token, batch.responses.length, distributions, tokens
    )


def own_index(batch: Batch) -> Tensor:
    """[N] where in the flattened hidden states each scored token itself stands.

    A token stands where the next token of its response is predicted; the last one, in every
    layout, right behind the position it is predicted from, or behind its prompt.
    """
    followed = batch.response_of_token[1:] == batch.response_of_token[:-1]
    own = batch.predict_index + 1
    own[:-1] = torch.where(followed, batch.predict_index[1:], own[:-1])
    return own


def pooled_distribution(logps: Tensor, batch: Batch, side: Side, pool: Pool) -> Tensor:
    """The softmax at the response positions of one side, summed as the pool says.

    Args:
        logps: [N, V].

    Returns:
        [V] for `batch`, [R_side, V] for `response`, [N_side, V] for `position`; sums of
        log-probabilities for `log_batch` and `log_response`.
    """
    of_side = batch.responses.chosen if side == "chosen" else batch.responses.rejected
    token_of_side = of_side[batch.response_of_token]
    logps = logps[token_of_side]
    values = logps if pool.startswith("log_") else logps.exp()
    if pool == "position":
        return values
    if pool in SUMMED_POOLS:
        return values.sum(0)
    place = of_side.long().cumsum(0) - 1
    rows = place[batch.response_of_token[token_of_side]]
    zeros = values.new_zeros(int(of_side.sum()), values.shape[-1])
    return zeros.index_add(0, rows, values)
