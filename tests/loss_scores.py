"""Scores and responses written by hand, for tests of loss terms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plot_exp.data.collate import Responses, describe_responses
from plot_exp.data.preference_distribution import TokenCounts
from plot_exp.losses.base import Totals
from plot_exp.losses.context import Context
from plot_exp.ops.scores import Pool, Scores, Side, TokenOutput

from scoring_models import example


def scores(
    token_logps: Sequence[Sequence[float]],
    distributions: dict[tuple[Side, Pool], Tensor] | None = None,
    tokens: dict[TokenOutput, Tensor] | None = None,
) -> Scores:
    """Scores of responses from their token log-probabilities, in float64."""
    lengths = torch.tensor([len(row) for row in token_logps])
    return Scores(
        torch.tensor([value for row in token_logps for value in row], dtype=torch.float64),
        torch.repeat_interleave(torch.arange(len(token_logps)), lengths),
        lengths,
        distributions or {},
        tokens or {},
    )


def ranked(*lengths: Sequence[int]) -> Responses:
    """One ranked example for each tuple of response lengths."""
    return describe_responses([example([1], [[2] * n for n in row]) for row in lengths])


def totals(responses: Responses) -> Totals:
    """The counts where this is the optimizer's whole batch."""
    return Totals.of([responses])


def context(
    embedding: Tensor,
    chosen: Sequence[int],
    rejected: Sequence[int],
    *,
    allowed: Sequence[bool] | None = None,
    reference: Sequence[float] | None = None,
) -> Context:
    """A context over a hand-written vocabulary."""
    size = len(embedding)
    counts = TokenCounts(torch.tensor(chosen), torch.tensor(rejected), 1, 1)
    mask = torch.tensor(allowed if allowed is not None else [True] * size)
    anchor = torch.tensor(reference if reference is not None else [1 / size] * size)
    return Context(
        vocab_size=size,
        allowed_tokens=lambda: mask,
        token_counts=lambda: counts,
        input_embedding=lambda: embedding,
        output_embedding=lambda: -embedding,
        contextual_embedding=lambda: embedding.flip(-1) + 1,
        reference_distribution=lambda: anchor.double(),
    )
