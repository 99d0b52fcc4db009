"""What the reference's whole distributions are made from again, instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReferenceStates:
    """The reference at the response positions of a batch.

    Attributes:
        hidden: [N, D] its `predicting_hidden`.
        head: maps them to its logits [N, V]; called again in the backward pass.
    """

    hidden: Tensor
    head: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def logits(self, rows: slice) -> Tensor:
        """[n, V] of some positions; no gradient goes to the reference."""
        return self.head(self.hidden[rows])
