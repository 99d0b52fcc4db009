"""The run's loss terms, made without the model's embeddings or the data's counts."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    unset_fake_temporarily,
)

from plot_exp.config.schema import Config
from plot_exp.data.collate import Responses
from plot_exp.data.preference_distribution import TokenCounts
from plot_exp.losses.base import TermResult, Totals
from plot_exp.losses.composite import Composite, build
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Scores

# Terms keep what they make of an embedding; its width enters `geometry_bytes` alone.
WIDTH = 8


class RehearsedTerms(Composite):
    """Terms whose way depends on numbers are stood in for by the sum of what they read."""

    def result(
        self,
        name: str,
        policy: Scores,
        reference: Scores | None,
        responses: Responses,
        totals: Totals,
    ) -> TermResult:
        """See `Composite.result`."""
        try:
            return super().result(name, policy, reference, responses, totals)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return TermResult(torch.stack([one.sum() for one in policy.tensors()]).sum())


def geometry_bytes(config: Config, vocab_size: int, width: int) -> int:
    """What terms keep of an embedding [V, D] in single precision, as transport in full does."""
    plot = config.loss.get("plot")
    full = getattr(plot, "transport", "line") in ("exact", "sinkhorn", "dual")
    return 4 * vocab_size * width * (full + ("emo" in config.loss))


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
        built = build(config.loss, context)
        return RehearsedTerms(dict(built.named_terms()))
