"""What attention keeps on a GPU, for a rehearsal where there is none.

Rehearsals run on fake CPU tensors. SDPA's kernels on a GPU keep what the CPU's keeps: queries,
keys, values, the output and a logarithm a query. FlexAttention, which packed rows take on a GPU,
cannot be compiled without one, so a stand-in keeps the same for it (arXiv 2412.05496; the backward
pass of FlashAttention-2, arXiv 2307.08691, adds one number a query).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.models.attention import attends_by_rows
from plot_exp.models.dropout import drops_by_token

PLANNED = "plot_exp_planned"


class _KeepsOutput(torch.autograd.Function):
    """Attention by shapes: [rows, heads, T, D] queries; keys and values may have fewer heads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        logarithm = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, logarithm)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, logarithm = ctx.saved_tensors
        torch.empty_like(logarithm)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    found: Tensor = _KeepsOutput.apply(query, key, value)
    return found.transpose(1, 2), None


def uses_flex(kind: str, model: Any, batches: Sequence[Batch]) -> bool:
    """Whether these batches would go through FlexAttention on this kind of device."""
    views = [batch.visibility for batch in batches]
    joined = bool(views) and all(view is not None and view.pieces for view in views)
    able = bool(getattr(model, "_supports_flex_attn", False)) and not drops_by_token(model)
    return kind == "cuda" and joined and able and attends_by_rows(model)


@contextmanager
def row_attention(
    kind: str, models: Sequence[Any], batches: Sequence[Batch]
) -> Iterator[list[Batch]]:
    """The batches as a rehearsal on the CPU has to see them to keep what the device would."""
    if not uses_flex(kind, models[0], batches):
        yield list(batches)
        return
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(PLANNED, _attend)
    AttentionMaskInterface.register(PLANNED, lambda *_, **__: None)
    before = [model.config._attn_implementation for model in models]
    for model in models:
        model.config._attn_implementation = PLANNED
    try:
        yield [replace(batch, visibility=None) for batch in batches]
    finally:
        for model, kind_before in zip(models, before, strict=True):
            model.config._attn_implementation = kind_before
