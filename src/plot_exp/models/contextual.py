"""Token embeddings in context: what a model's last hidden states say of each token on average."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.models.attention import decoder_for
from plot_exp.models.policy import Policy


@torch.no_grad()
def contextual_embedding(policy: Policy, batches: Iterable[Batch]) -> Tensor:
    """The mean last hidden state at each token's own positions within responses.

    Tokens that never occur there stand at the mean over all positions. The last token of a
    response, its EOS, is not read: nothing follows it, and it may carry no mass.

    Returns:
        fp32 [V, D] on CPU.

    Raises:
        ValueError: no response has two tokens, so there is no position to read.
    """
    total = counts = None
    training = policy.training
    policy.eval()
    for batch in batches:
        batch = batch.to(policy.device)
        hidden = decoder_for(policy.model, batch)(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        hidden = hidden.reshape(-1, hidden.shape[-1])
        # A token stands where the next token of its response is predicted, in every layout.
        followed = batch.response_of_token[1:] == batch.response_of_token[:-1]
        tokens = batch.targets[:-1][followed]
        states = hidden[batch.predict_index[1:][followed]].double()
        if total is None or counts is None:
            total = states.new_zeros(policy.vocab_size, states.shape[-1])
            counts = states.new_zeros(policy.vocab_size)
        total.index_add_(0, tokens, states)
        counts.index_add_(0, tokens, torch.ones_like(states[:, 0]))
    policy.train(training)
    if total is None or counts is None or not bool(counts.sum() > 0):
        raise ValueError("embedding=contextual: no response has a token that another one follows")
    mean = total.sum(0) / counts.sum()
    seen = counts > 0
    return torch.where(seen[:, None], total / counts.clamp_min(1)[:, None], mean).float().cpu()
