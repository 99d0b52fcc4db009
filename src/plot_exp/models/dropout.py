"""Dropout whose masks belong to the tokens, not to the batch that they happen to stand in.

A mask element is a hash of the run's seed and step, the layer, the token (which response of which
prompt, which position) and the feature or head. So one batch of 16, eight of 2 and two processes
of 8 drop the same elements, whatever the padding, and a second pass repeats the first.

Covers `nn.Dropout` on [rows, T, ...] and the attention of models that go through transformers'
attention interface; architectures that call the functional form themselves (OPT, Falcon) keep
torch's own random masks, which depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "plot_exp_dropout"
# Odd 64-bit multipliers and shifts of the splitmix64 finaliser (Steele et al. 2014), as int64.
_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)
_GOLDEN = -7046029254386353131
_BITS = 24


class _Keys:
    """The token keys of the pass that is under way."""

    current: Tensor | None = None


def use_token_keys(token_keys: Tensor | None, seed: int) -> None:
    """Sets what the masks of the next passes are drawn from.

    Args:
        token_keys: int64 [rows, T], equal for the same token of the same example; None gives
            torch's own random masks.
        seed: of the run and step.
    """
    _Keys.current = None if token_keys is None else mix(token_keys + _wrapped(seed * _GOLDEN))


class _Replayed(AbstractContextManager[None]):
    """The keys of the pass in which this was made; one graph may be run back several times."""

    def __init__(self) -> None:
        self.kept = _Keys.current
        self.before: list[Tensor | None] = []

    def __enter__(self) -> None:
        self.before.append(_Keys.current)
        _Keys.current = self.kept

    def __exit__(self, *_: object) -> None:
        _Keys.current = self.before.pop()


@contextmanager
def within_keys(start: int, stop: int) -> Iterator[None]:
    """For attention over a stretch of the rows: their keys there."""
    whole = _Keys.current
    try:
        _Keys.current = None if whole is None else whole[:, start:stop]
        yield
    finally:
        _Keys.current = whole


def recompute_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For activation checkpointing: a layer that runs again drops what it dropped before.

    Returns:
        The contexts of a layer's first run and of the later ones, which see the keys of the first
        whatever passes came between.
    """
    return nullcontext(), _Replayed()


def mix(keys: Tensor) -> Tensor:
    """A bijection of int64 that leaves no visible pattern (splitmix64's finaliser)."""
    keys = (keys ^ _shifted(keys, 30)) * _MULTIPLIERS[0]
    keys = (keys ^ _shifted(keys, 27)) * _MULTIPLIERS[1]
    return keys ^ _shifted(keys, 31)


def _shifted(keys: Tensor, bits: int) -> Tensor:
    """A shift to the right that brings in zeros; int64's own repeats the sign."""
    return (keys >> bits) & ((1 << (64 - bits)) - 1)


def _wrapped(number: int) -> int:
    """The number as int64 arithmetic would wrap it."""
    return (number + 2**63) % 2**64 - 2**63


def keep_mask(keys: Tensor, probability: float) -> Tensor:
    """True with probability 1 − p for each key."""
    return _shifted(mix(keys), 64 - _BITS) >= round(probability * 2**_BITS)


class TokenDropout(nn.Module):
    """`nn.Dropout` with masks by token; torch's own where no keys fit the input.

    Args:
        p: the probability of a zero.
        layer: tells this module's masks from another's.
    """

    def __init__(self, p: float, layer: int) -> None:
        super().__init__()
        self.p, self.layer = p, layer

    def forward(self, hidden: Tensor) -> Tensor:
        """Zeros elements of [rows, T, ...] and scales the rest."""
        keys = _Keys.current
        if not self.training or self.p == 0:
            return hidden
        if keys is None or hidden.shape[:2] != keys.shape:
            return nn.functional.dropout(hidden, self.p)
        features = torch.arange(hidden[0, 0].numel(), device=hidden.device)
        by_layer = mix(keys + _wrapped((self.layer + 1) * _GOLDEN))
        kept = keep_mask(by_layer[..., None] + features * _GOLDEN, self.p)
        return hidden * kept.view(hidden.shape) / (1 - self.p)


def attention_with_token_dropout(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """SDPA, except with dropout or a soft-cap (Gemma 2): then weights are dropped by token.

    Args:
        query: [rows, heads, T, D]; key and value may have fewer heads.
        attention_mask: bool or additive [rows, 1, T, T], or None for causal.

    Returns:
        [rows, T, heads, D] and None.
    """
    keys = _Keys.current
    softcap = options.get("softcap")
    by_token = dropout > 0 and keys is not None and query.shape[2] == keys.shape[1]
    if not by_token and softcap is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return found
    groups = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(-1, -2) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + _additive(attention_mask, query)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    if by_token and keys is not None:
        kept = keep_mask(_pair_keys(keys, query.shape[1], getattr(module, "layer_idx", 0)), dropout)
        weights = weights * kept / (1 - dropout)
    else:
        weights = nn.functional.dropout(weights, dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _pair_keys(keys: Tensor, heads: int, layer: int) -> Tensor:
    """[rows, heads, T, T] one key for each query, key and head."""
    head = torch.arange(heads, device=keys.device)[:, None, None]
    asking = mix(keys + _wrapped(-(layer + 1) * _GOLDEN))[:, None, :, None]
    return mix(asking + head * _GOLDEN) + keys[:, None, None, :]


def _additive(attention_mask: Tensor | None, query: Tensor) -> Tensor:
    lowest = torch.finfo(query.dtype).min
    if attention_mask is None:
        width = query.shape[2]
        allowed = torch.ones(width, width, dtype=torch.bool, device=query.device).tril()
        return torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, lowest)
    if attention_mask.dtype == torch.bool:
        return torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill(
            ~attention_mask, lowest
        )
    return attention_mask


def set_dropout(model: nn.Module, probability: float) -> None:
    """Sets every dropout probability of a transformers model, the attention's included.

    Probabilities that modules keep as plain numbers count too. Falcon reads its own from the
    configuration, which is left as it is; so is an adapter's.
    """
    for layer, (place, parent) in enumerate(list(model.named_modules())):
        if place.endswith("lora_dropout"):
            continue  # an adapter's own setting
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout | TokenDropout):
                setattr(parent, name, TokenDropout(probability, layer).train(child.training))
        for name, value in vars(parent).items():
            if isinstance(value, float) and "drop" in name:
                setattr(parent, name, probability)
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and probability > 0 and takes_our_attention(config):
            _register_attention()
            config._attn_implementation = ATTENTION


def drops_by_token(model: nn.Module) -> bool:
    """Whether a pass in training mode draws masks by token, an adapter's included."""
    return any(
        isinstance(value, float) and "drop" in name and value > 0
        for module in model.modules()
        for name, value in vars(module).items()
    ) or any(isinstance(module, TokenDropout) and module.p > 0 for module in model.modules())


def takes_our_attention(config: Any) -> bool:
    """SDPA, or the eager form where only a soft-cap stands against SDPA."""
    kind = getattr(config, "_attn_implementation", None)
    softcap = getattr(config, "attn_logit_softcapping", None)
    return kind in ("sdpa", ATTENTION) or (kind == "eager" and softcap is not None)


def _register_attention() -> None:
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(ATTENTION, attention_with_token_dropout)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
