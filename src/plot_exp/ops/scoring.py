"""The one function between a model and the losses: a batch in, `Scores` out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.ops.head import Head
from plot_exp.ops.scores import SUMMED_POOLS, Pool, Request, Scores, Side


def score(backbone: nn.Module, head: Head, batch: Batch, request: Request) -> Scores:
    """Scores the responses of a batch.

    Only hidden states that predict a response token go through the head; log-probabilities are
    taken in fp32 whatever the model's precision.

    Args:
        backbone: maps input ids to hidden states [rows, T, D].
        head: maps hidden states [N, D] to logits [N, V].
    """
    hidden = backbone(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    predicting = hidden.reshape(-1, hidden.shape[-1])[batch.predict_index]
    logps = torch.log_softmax(head(predicting), dim=-1)
    token_logps = logps.gather(-1, batch.targets[:, None]).squeeze(-1)
    distributions = {
        key: pooled_distribution(logps, batch, *key) for key in sorted(request.distributions)
    }
    return Scores(token_logps, batch.response_of_token, batch.responses.length, distributions)


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
