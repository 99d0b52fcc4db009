"""The one function between a model and the losses: a batch in, `Scores` out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.ops.chunked import read_head
from plot_exp.ops.head import Head
from plot_exp.ops.readout import Readout
from plot_exp.ops.reference_states import ReferenceStates
from plot_exp.ops.scores import Request, Scores, TokenOutput


def score(
    backbone: nn.Module,
    head: Head,
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
    readout = Readout.of(batch, request, head.adjustment, reference)
    outputs = read_head(head, predicting, readout)
    tokens: dict[TokenOutput, Tensor] = {name: outputs[name] for name in readout.tokens}
    if "hidden" in request.tokens:
        tokens["hidden"] = hidden[own_index(batch)]
    if "predicting_hidden" in request.tokens:
        tokens["predicting_hidden"] = predicting
    return Scores(
        outputs["token_logps"],
        batch.response_of_token,
        batch.responses.length,
        {key: outputs[key] for key in readout.pools},
        tokens,
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
