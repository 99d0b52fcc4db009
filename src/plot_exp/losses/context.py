"""What the terms of a run may know of its model and training data when they are built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from plot_exp.data.preference_distribution import TokenCounts


@dataclass(frozen=True)
class Context:
    """Facts that are fixed before training; each is fetched only by the term that needs it.

    Attributes:
        vocab_size: V, the rows of the model's output embedding.
        allowed_tokens: [V] bool; special, padding and unused rows are False.
        token_counts: counts over the training responses, by side.
        input_embedding, output_embedding: [V, D], the reference's, frozen.
        contextual_embedding: [V, D] the mean last hidden state of each token under the reference,
            over the training responses.
        reference_distribution: [V] the reference's mean distribution over the chosen training
            responses.
    """

    vocab_size: int
    allowed_tokens: Callable[[], Tensor]
    token_counts: Callable[[], TokenCounts]
    input_embedding: Callable[[], Tensor]
    output_embedding: Callable[[], Tensor]
    contextual_embedding: Callable[[], Tensor]
    reference_distribution: Callable[[], Tensor]
