"""One prompt's keys and values, shared by every row of a batch without a copy of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class SharedLayer(DynamicLayer):
    """Keys and values [1, heads, P, size] of one layer, read by any number of rows.

    What comes behind them is joined to them for the layer's own attention and not kept, so that a
    batch holds one layer's keys and values at a time, and calls leave no trace.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The shared keys and values with those of the new tokens behind them."""
        rows = len(key_states)
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def share(cache: Any) -> Cache | None:
    """A cache that every row shares, or None where a layer keeps anything but plain keys and values
    (sliding windows, recurrent states, quantised caches)."""
    layers = getattr(cache, "layers", None)
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    if any(layer.keys is None or layer.keys.ndim != 4 for layer in layers):
        return None
    return Cache(layers=[SharedLayer(layer.keys, layer.values) for layer in layers])
