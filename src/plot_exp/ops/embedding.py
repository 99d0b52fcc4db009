"""A frozen embedding of the vocabulary that a request carries along."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class FrozenEmbedding:
    """Unit vectors [V, D'] of the tokens, kept wherever they were last read.

    Compared and hashed by identity, so that requests stay cheap to compare.

    Args:
        vectors: [V, D'] of any length; a zero vector stays zero, at cosine 0 from every other.
    """

    def __init__(self, vectors: Tensor) -> None:
        self._unit = F.normalize(vectors.detach().to(_at_least_single(vectors.dtype)), dim=-1)

    def beside(self, other: Tensor) -> Tensor:
        """The unit vectors on the device and in the precision of another tensor."""
        if self._unit.device != other.device or self._unit.dtype != other.dtype:
            self._unit = self._unit.to(other.device, other.dtype)
        return self._unit


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32
