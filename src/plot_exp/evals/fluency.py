"""Are the model's own responses still fluent? Perplexity under the reference, variety, length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from plot_exp.data.loader import evaluation_batches
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.models.reference import Reference
from plot_exp.ops.scores import Request


@torch.no_grad()
def perplexity(
    reference: Reference, generated: Sequence[TokenisedExample], batch_size: int, pad_id: int
) -> float:
    """exp of the mean negative log-probability a token of generated responses, over all tokens.

    Raises:
        ValueError: there is no token.
    """
    total, tokens = 0.0, 0
    with reference.live() as model:
        for batch in evaluation_batches(generated, batch_size, pad_id):
            scores = model(batch.to(model.device), Request())
            total += float(scores.token_logps.double().sum())
            tokens += len(scores.token_logps)
    if not tokens:
        raise ValueError("perplexity needs at least one token")
    return math.exp(-total / tokens)


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all word n-grams of the texts; 0 where there is none."""
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
