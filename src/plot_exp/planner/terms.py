"""The run's loss terms, made without the model's embeddings or the data's counts."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from plot_exp.config.schema import Config
from plot_exp.data.preference_distribution import TokenCounts
from plot_exp.losses.composite import Composite, build
from plot_exp.losses.context import Context

# Terms keep what they make of an embedding; its width enters `geometry_bytes` alone.
WIDTH = 8


def build_terms(config: Config, vocab_size: int) -> Composite:
    """Every term of the run on narrow embeddings and made-up counts, which set no shape."""
    with unset_fake_temporarily():
        draw = torch.Generator().manual_seed(0)
        vectors = torch.randn(vocab_size, WIDTH, generator=draw)
        counts = [torch.randint(1, 9, (vocab_size,), generator=draw) for _ in range(2)]
        uniform = torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64)
        given: dict[str, Tensor] = {"vectors": vectors}
        context = Context(
            vocab_size=vocab_size,
            allowed_tokens=lambda: torch.ones(vocab_size, dtype=torch.bool),
            token_counts=lambda: TokenCounts(counts[0], counts[1], 1_000, 1_000),
            input_embedding=partial(given.__getitem__, "vectors"),
            output_embedding=partial(given.__getitem__, "vectors"),
            contextual_embedding=partial(given.__getitem__, "vectors"),
            reference_distribution=lambda: uniform,
        )
        return build(config.loss, context)
