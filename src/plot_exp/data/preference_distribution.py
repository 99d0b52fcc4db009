"""PLOT's target: which tokens the preferred responses favour, as a distribution (arXiv 2604.01837).

Q₊ and Q₋ count tokens over the preferred and the rejected training responses;
Q_diff = Q₊/ΣQ₊ − Q₋/ΣQ₋; the target is a non-negative transform of it, renormalised. The paper does
not name the transform, so it is an option, and so are smoothing, significance and the anchor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from plot_exp.errors import UserError

Transform = Literal["relu", "shift", "softmax", "absolute"]

_BLOCK_RESPONSES = 4_096


@dataclass(frozen=True)
class TokenCounts:
    """How often each token occurs in the preferred and in the rejected responses.

    Attributes:
        chosen: LongTensor [V].
        rejected: LongTensor [V].
        chosen_responses: number of responses counted in `chosen`.
        rejected_responses: number of responses counted in `rejected`.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_responses: int
    rejected_responses: int

    def mass(self, allowed: Tensor) -> Tensor:
        """Share of each allowed token in all the responses, both sides together: float64 [V]."""
        both = torch.where(allowed, self.chosen + self.rejected, 0).double()
        return both / both.sum().clamp_min(1)


@dataclass(frozen=True)
class PreferenceDistribution:
    """The target with all it was made of.

    Attributes:
        counts: the token counts.
        allowed: BoolTensor [V] of tokens that may carry mass.
        difference: float64 [V], Q_diff.
        target: float64 [V], non-negative, sums to one.
        settings: the options it was made with, plain data.
    """

    counts: TokenCounts
    allowed: Tensor
    difference: Tensor
    target: Tensor
    settings: Mapping[str, object] = field(default_factory=dict)


def count_tokens(
    chosen: Iterable[Sequence[int]], rejected: Iterable[Sequence[int]], vocab_size: int
) -> TokenCounts:
    """Counts the tokens of the training responses.

    Args:
        chosen: token ids of each preferred response.
        rejected: token ids of each rejected response.
        vocab_size: V, rows of the embedding matrix.

    Raises:
        ValueError: a token id is outside 0 … V − 1.
    """
    favoured, favoured_responses = _count(chosen, vocab_size, "chosen")
    disfavoured, disfavoured_responses = _count(rejected, vocab_size, "rejected")
    return TokenCounts(favoured, disfavoured, favoured_responses, disfavoured_responses)


def allowed_tokens(
    vocab_size: int, special_ids: Iterable[int], tokenizer_size: int | None = None
) -> Tensor:
    """The tokens that may carry mass: neither special nor a row beyond the tokenizer.

    Args:
        vocab_size: V, rows of the embedding matrix, often padded beyond the tokenizer.
        special_ids: special and padding tokens; ids beyond V are ignored.
        tokenizer_size: number of ids that the tokenizer knows; V if None.

    Returns:
        BoolTensor [V].
    """
    allowed = torch.zeros(vocab_size, dtype=torch.bool)
    allowed[: vocab_size if tokenizer_size is None else tokenizer_size] = True
    allowed[[token for token in special_ids if 0 <= token < vocab_size]] = False
    return allowed


def difference(
    counts: TokenCounts, allowed: Tensor, *, smoothing: float = 0.0, significance: float = 0.0
) -> Tensor:
    """Q_diff = Q₊/ΣQ₊ − Q₋/ΣQ₋ over the allowed tokens.

    Args:
        counts: token counts of both sides.
        allowed: BoolTensor [V].
        smoothing: added to each allowed token's count on both sides. It pulls both sides to the
            uniform distribution; with sides of equal length it only shrinks Q_diff.
        significance: tokens whose two frequencies differ by at most this many standard errors
            (two-sample binomial, pooled) are set to zero; 0 keeps all. Tokens repeat within a
            response, so the true error is larger than the binomial one.

    Returns:
        float64 [V], zero off `allowed`; sums to zero unless `significance` removed something.

    Raises:
        ValueError: one side has no allowed token.
    """
    zero = torch.zeros((), dtype=torch.float64)
    sides = []
    for name, side in (("chosen", counts.chosen), ("rejected", counts.rejected)):
        count = torch.where(allowed, side.double() + smoothing, zero)
        if not bool(torch.where(allowed, side, 0).sum() > 0):
            raise ValueError(
                f"the {name} responses hold no token that may carry mass "
                "(special, padding and unused ids do not count): there is nothing to prefer"
            )
        sides.append(count)
    favoured, disfavoured = sides
    signed = favoured / favoured.sum() - disfavoured / disfavoured.sum()
    if significance > 0:
        error = _standard_error(counts, allowed)
        signed = torch.where(signed.abs() > significance * error, signed, zero)
    return signed


def target(
    difference: Tensor,
    transform: Transform = "relu",
    temperature: float = 1.0,
    allowed: Tensor | None = None,
    anchor: Tensor | None = None,
    gamma: float = 1.0,
) -> Tensor:
    """The distribution that PLOT moves the model towards.

    Args:
        difference: Q_diff [V].
        transform: `relu` max(x, 0); `shift` x − min over allowed tokens; `softmax`
            exp(x/temperature); `absolute` |x|; each then divided by its sum.
        temperature: of `softmax`.
        allowed: BoolTensor [V]; all tokens if None.
        anchor: a distribution [V], the reference model's own; if given, the transform applies to
            anchor + gamma·Q_diff instead of Q_diff.
        gamma: how far to move away from the anchor.

    Returns:
        float64 [V], non-negative, sums to one, zero off `allowed`.

    Raises:
        ValueError: Q_diff is zero everywhere, or the transform leaves no mass.
    """
    allowed = torch.ones_like(difference, dtype=torch.bool) if allowed is None else allowed
    zero = torch.zeros((), dtype=torch.float64, device=difference.device)
    signed = torch.where(allowed, difference.double(), zero)
    if not bool(signed.any()):
        raise ValueError(
            "chosen and rejected responses use every token equally often (or no difference is "
            "significant): there is no preference distribution to learn"
        )
    if anchor is not None:
        kept = torch.where(allowed, anchor.double().to(difference.device), zero)
        signed = kept / kept.sum().clamp_min(torch.finfo(torch.float64).tiny) + gamma * signed
    mass = torch.where(allowed, _non_negative(signed, transform, temperature, allowed), zero)
    total = mass.sum()
    if not bool(total > 0):
        raise ValueError(f"the transform {transform!r} leaves no token with mass")
    return mass / total


def save(distribution: PreferenceDistribution, path: Path | str) -> None:
    """Writes a safetensors file, whole or not at all; the settings are JSON in its header."""
    path = Path(path)
    counts = distribution.counts
    tensors = {
        "chosen": counts.chosen,
        "rejected": counts.rejected,
        "allowed": distribution.allowed,
        "difference": distribution.difference,
        "target": distribution.target,
    }
    header = {
        "chosen_responses": counts.chosen_responses,
        "rejected_responses": counts.rejected_responses,
        "settings": dict(distribution.settings),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        copies = {name: tensor.cpu().clone() for name, tensor in tensors.items()}
        save_file(copies, partial, metadata={"preference_distribution": json.dumps(header)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path | str) -> PreferenceDistribution:
    """Reads what `save` wrote.

    Raises:
        UserError: the file is missing, damaged, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["preference_distribution"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        counts = TokenCounts(
            tensors["chosen"],
            tensors["rejected"],
            header["chosen_responses"],
            header["rejected_responses"],
        )
        return PreferenceDistribution(
            counts,
            tensors["allowed"],
            tensors["difference"],
            tensors["target"],
            header["settings"],
        )
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} is not a readable preference distribution ({type(error).__name__}: {error}); "
            "delete it and it is computed again from the training responses"
        ) from error


def _count(responses: Iterable[Sequence[int]], vocab_size: int, side: str) -> tuple[Tensor, int]:
    """Token counts [V] and the number of responses, a block of responses at a time."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    block: list[Sequence[int]] = []
    seen = 0
    for response in responses:
        seen += 1
        block.append(response)
        if len(block) == _BLOCK_RESPONSES:
            counts += _bincount(block, vocab_size, side)
            block.clear()
    counts += _bincount(block, vocab_size, side)
    return torch.from_numpy(counts), seen


def _bincount(block: list[Sequence[int]], vocab_size: int, side: str) -> np.ndarray:
    arrays = [np.asarray(response, dtype=np.int64).reshape(-1) for response in block]
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *arrays])
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
        outside = int(ids.min() if ids.min() < 0 else ids.max())
        raise ValueError(
            f"a {side} response holds token id {outside}, but the vocabulary has {vocab_size} "
            f"tokens (0 to {vocab_size - 1})"
        )
    return np.bincount(ids, minlength=vocab_size)


def _standard_error(counts: TokenCounts, allowed: Tensor) -> Tensor:
    """Of the difference of two binomial frequencies under the pooled one, [V]."""
    favoured = torch.where(allowed, counts.chosen, 0).double()
    disfavoured = torch.where(allowed, counts.rejected, 0).double()
    sizes = favoured.sum(), disfavoured.sum()
    pooled = (favoured + disfavoured) / (sizes[0] + sizes[1])
    return (pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1])).sqrt()


def _non_negative(
    signed: Tensor, transform: Transform, temperature: float, allowed: Tensor
) -> Tensor:
    if transform == "relu":
        return signed.clamp_min(0)
    if transform == "shift":
        return signed - signed[allowed].min()
    if transform == "softmax":
        return torch.softmax(signed.masked_fill(~allowed, -torch.inf) / temperature, dim=-1)
    if transform == "absolute":
        return signed.abs()
    raise ValueError(f"transform is relu, shift, softmax or absolute, not {transform!r}")
