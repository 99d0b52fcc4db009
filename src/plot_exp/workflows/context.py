"""What loss terms may know of the model and the training data, fetched when first asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plot_exp.config.schema import Config
from plot_exp.data.loader import evaluation_batches
from plot_exp.data.packing import PADDED, Layout
from plot_exp.data.preference_distribution import (
    PreferenceDistribution,
    TokenCounts,
    allowed_tokens,
    count_tokens,
    difference,
    load,
    save,
)
from plot_exp.data.tokenise import ChatTokeniser, TokenisedExample
from plot_exp.evals.transport import mean_distribution
from plot_exp.losses.context import Context
from plot_exp.models.contextual import contextual_embedding
from plot_exp.models.policy import Policy, input_embedding, output_embedding
from plot_exp.models.reference import Reference
from plot_exp.processes.session import current

# Enough positions for a stable mean distribution; a pass over all the data would cost an epoch.
REFERENCE_EXAMPLES = 512
# Rare tokens need more of them.
CONTEXTUAL_EXAMPLES = 4096


def build_context(
    config: Config,
    reference: Reference,
    tokeniser: ChatTokeniser,
    train: list[TokenisedExample],
    layout: Layout = PADDED,
) -> Context:
    """The context of a run; only training responses are counted."""
    with reference.live() as model:
        vocab_size = model.vocab_size

    @cache
    def allowed() -> Tensor:
        tokenizer = tokeniser.tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        return allowed_tokens(vocab_size, special, len(tokenizer))

    @cache
    def token_counts() -> TokenCounts:
        folder = Path(config.cache_dir).expanduser() / "preference_distribution"
        return current().first(
            "token counts", lambda: cached_counts(train, vocab_size, allowed(), folder)
        )

    @cache
    def reference_distribution() -> Tensor:
        pad_id = tokeniser.tokenizer.pad_token_id
        batches = evaluation_batches(
            train[:REFERENCE_EXAMPLES], config.eval.batch_size, pad_id, layout
        )
        with reference.live() as model:
            return mean_distribution(model, batches, "chosen")

    @cache
    def contextual() -> Tensor:
        pad_id = tokeniser.tokenizer.pad_token_id
        batches = evaluation_batches(
            train[:CONTEXTUAL_EXAMPLES], config.eval.batch_size, pad_id, layout
        )
        with reference.live() as model:
            return contextual_embedding(model, batches)

    def rows_of(embedding: Callable[[Policy], Tensor]) -> Tensor:
        with reference.live() as model:
            return embedding(model).float().cpu().clone()

    return Context(
        vocab_size=vocab_size,
        allowed_tokens=allowed,
        token_counts=token_counts,
        input_embedding=lambda: rows_of(input_embedding),
        output_embedding=lambda: rows_of(output_embedding),
        contextual_embedding=contextual,
        reference_distribution=reference_distribution,
    )


def cached_counts(
    train: list[TokenisedExample], vocab_size: int, allowed: Tensor, folder: Path
) -> TokenCounts:
    """Token counts of the training responses by side, from the cache where they stand there."""
    sides = responses_by_side(train)
    digest = hashlib.sha256(str(vocab_size).encode())
    for responses in sides:
        digest.update(b"side")
        for ids in responses:
            digest.update(np.asarray((*ids, -1), dtype=np.int64).tobytes())
    path = folder / f"{digest.hexdigest()[:24]}.safetensors"
    if path.is_file():
        return load(path).counts
    counts = count_tokens(*sides, vocab_size)
    nothing = torch.zeros(vocab_size, dtype=torch.float64)
    save(PreferenceDistribution(counts, allowed, nothing, nothing, {}), path)
    return counts


def responses_by_side(
    train: list[TokenisedExample],
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The chosen (best or desirable) and the rejected responses' ids."""
    chosen: list[tuple[int, ...]] = []
    rejected: list[tuple[int, ...]] = []
    for item in train:
        labels = item.example.desirable
        for place, ids in enumerate(item.response_ids):
            preferred = labels[place] if labels is not None else place == 0
            (chosen if preferred else rejected).append(ids)
    return chosen, rejected


def signed_difference(context: Context) -> Tensor:
    """Q_diff [V] of the training responses."""
    return difference(context.token_counts(), context.allowed_tokens())
