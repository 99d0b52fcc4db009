"""Tensors of which each process has a part (DTensor), beside those that are in one piece."""

from __future__ import annotations

from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor in one piece; every process that has a part must ask for it."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def local(tensor: Tensor) -> Tensor:
    """This process's part, or all of it where there are no parts."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()
