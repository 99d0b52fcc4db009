"""Attention for rows that hold more than one causal sequence (see `data.packing`).

What a batch says of visibility reaches a model in one of three forms: a dense 4-D mask, which most
decoders take as it is; the pieces of a single row, each attended to by itself, which costs no
pairs across examples and no padding; or, on CUDA, FlexAttention's block mask. The last two go
through transformers' attention interface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.data.packing import Visibility
from plot_exp.models.dropout import (
    attention_with_token_dropout,
    drops_by_token,
    takes_our_attention,
    within_keys,
)

ATTENTION = "plot_exp_rows"
FLEX_BLOCK = 128  # FlexAttention's own; its rows are laid out in multiples of it


@dataclass(frozen=True)
class Pieces:
    """Stretches of a single row that do not see one another: lengths, and a mask for each."""

    sizes: list[int]
    masks: list[Tensor | None]


def decoder_for(model: Any, batch: Batch) -> Callable[..., Any]:
    """The model's decoder, to be called with the batch's ids, positions and 2-D mask.

    Args:
        model: a transformers causal language model.
    """
    decoder: nn.Module = model.get_decoder()
    if batch.visibility is None:
        return decoder
    return partial(_with_inputs, decoder, attention_inputs(model, batch.visibility))


def _with_inputs(decoder: nn.Module, attention: dict[str, Any], **inputs: Any) -> Any:
    return decoder(**(inputs | attention))


def attention_inputs(model: Any, visibility: Visibility) -> dict[str, Any]:
    """What the model's decoder takes beside ids and positions to see what it should."""
    form = _form(model, visibility)
    known = _inputs.setdefault(visibility, {})
    if form not in known:
        known[form] = _FORMS[form](visibility)
    return known[form]


def _form(model: Any, visibility: Visibility) -> str:
    kind = model.config._attn_implementation
    if not visibility.pieces or kind != ATTENTION:
        # SDPA takes either kind of mask in any precision; other forms add it to the scores.
        return "bool" if kind in ("sdpa", ATTENTION) or "dropout" in kind else "additive"
    return "flex" if visibility.example.is_cuda and _flex_serves(model) else "pieces"


def _flex_serves(model: Any) -> bool:
    drops = model.training and drops_by_token(model)
    return bool(getattr(model, "_supports_flex_attn", False)) and not drops


def additive(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A boolean mask as what is added to attention scores."""
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill_(~mask, torch.finfo(dtype).min)


def _pieces(visibility: Visibility) -> dict[str, Any]:
    # With a plain 2-D mask the decoder makes none of its own.
    everything = torch.ones_like(visibility.example, dtype=torch.bool)
    pieces = Pieces(list(visibility.pieces), visibility.piece_masks())
    return {"attention_mask": everything, "pieces": pieces}


def block_mask(visibility: Visibility) -> Any:
    """FlexAttention's form of `Visibility.sees`, for a row of whole blocks in pieces.

    A block of queries looks at the blocks from the start of its first token's piece up to itself;
    within them every pair is asked for.
    """
    from torch.nn.attention.flex_attention import BlockMask

    # Its own object: `_inputs` keeps the mask only while nothing else holds the batch's.
    own = replace(visibility)

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return own.sees(row, query, key)

    _, length = visibility.example.shape
    device = visibility.example.device
    sizes = torch.tensor(visibility.pieces)
    piece_starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    blocks = torch.arange(length // FLEX_BLOCK)
    first = piece_starts[::FLEX_BLOCK] // FLEX_BLOCK
    indices = first[:, None] + blocks
    inside = indices <= blocks[:, None]
    return BlockMask.from_kv_blocks(
        inside.sum(-1, dtype=torch.int32)[None, None].to(device),
        torch.where(inside, indices, 0).int()[None, None].to(device),
        BLOCK_SIZE=FLEX_BLOCK,
        mask_mod=sees,
        seq_lengths=(length, length),
    )


_FORMS: dict[str, Callable[[Visibility], dict[str, Any]]] = {
    "bool": lambda visibility: {"attention_mask": visibility.mask()},
    "additive": lambda visibility: {"attention_mask": additive(visibility.mask())},
    "pieces": _pieces,
    "flex": lambda visibility: {"attention_mask": block_mask(visibility)},
}
# Policy and reference, and both passes of a step, read the same masks.
_inputs: WeakKeyDictionary[Visibility, dict[str, dict[str, Any]]] = WeakKeyDictionary()


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    pieces: Pieces | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers calls it, over pieces, a block mask or a dense one.

    Args:
        query: [rows, heads, T, D]; key and value may have fewer heads.

    Returns:
        [rows, T, heads, D] and None.
    """
    options |= {"dropout": dropout, "scaling": scaling}
    if pieces is None:
        dense = isinstance(attention_mask, Tensor | None)
        inner: Any = attention_with_token_dropout if dense else _flex_attention()
        found: tuple[Tensor, None] = inner(module, query, key, value, attention_mask, **options)
        return found
    parts = (one.split(pieces.sizes, dim=2) for one in (query, key, value))
    outputs, start = [], 0
    for asked, keys, values, mask in zip(*parts, pieces.masks, strict=True):
        with within_keys(start, start + asked.shape[2]):
            output, _ = attention_with_token_dropout(module, asked, keys, values, mask, **options)
        outputs.append(output)
        start += asked.shape[2]
    return torch.cat(outputs, dim=1), None


def _flex_attention() -> Any:
    from transformers.integrations.flex_attention import flex_attention_forward

    return flex_attention_forward


def attends_by_rows(model: Any) -> bool:
    """Whether the model's attention goes through `attend`."""
    return bool(model.config._attn_implementation == ATTENTION)


def use_row_attention(model: Any) -> None:
    """Sends the attention of a model that uses SDPA through `attend`, as far as it lets itself."""
    config = model.config
    lets_choose = getattr(model, "_supports_attention_backend", False)
    if not lets_choose or not takes_our_attention(config):
        return
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    config._attn_implementation = ATTENTION
