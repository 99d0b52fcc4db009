"""The one function between a model and the losses: a batch in, `Scores` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.ops.chunked import read_head
from plot_exp.ops.head import Head
from plot_exp.ops.readout import Readout
from plot_exp.ops.reference_states import ReferenceStates
from plot_exp.ops.scores import Request, Scores, TokenOutput


def score(
    backbone: Callable[..., Any],
    head: Head,
    batch: Batch,
    request: Request,
    reference: ReferenceStates | None = None,
) -> Scores:
    """Scores the responses of a batch.

    Only hidden states that predict a response token go through the head; log-probabilities are
    taken in fp32 whatever the model's precision.

    Args:
        backbone: a decoder, or what calls one: input ids to hidden states [rows, T, D].
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
        tokens["hidden"] = hidden[batch.own_index]
    if "predicting_hidden" in request.tokens:
        tokens["predicting_hidden"] = predicting
    return Scores(
        outputs["token_logps"],
        batch.response_of_token,
        batch.responses.length,
        {key: outputs[key] for key in readout.pools},
        tokens,
    )
