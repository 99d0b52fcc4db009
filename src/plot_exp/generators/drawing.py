"""From logits to the next token of each row, greedy or by each row's own random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from plot_exp.generators.base import Sampling


def uniforms(sampling: Sampling, prompt: Sequence[int], sample: int) -> Tensor:
    """A row's random numbers in [0, 1), one a token: [max_new_tokens], on the CPU.

    They depend on the seed, the prompt and the number of the sample, not on the batch.
    """
    named = hashlib.sha256(f"{sampling.seed} {sample} {' '.join(map(str, prompt))}".encode())
    generator = torch.Generator().manual_seed(int.from_bytes(named.digest()[:8], "big") >> 1)
    return torch.rand(sampling.max_new_tokens, generator=generator, dtype=torch.float64)


def choose(logits: Tensor, sampling: Sampling, drawn: Tensor, earlier: Tensor | None) -> Tensor:
    """The next token of each row.

    Args:
        logits: [B, V].
        drawn: [B] uniform numbers; not read by greedy decoding.
        earlier: [B, L] ids generated so far, padded with V; None without penalties.

    Returns:
        [B] ids.
    """
    logits = logits.float()
    if earlier is not None:
        logits = _penalised(logits, sampling, earlier)
    if not sampling.temperature:
        return logits.argmax(-1)
    probabilities = (logits / sampling.temperature).softmax(-1).double()
    if sampling.top_p == 1.0:
        return _inverse(probabilities, drawn)
    ordered, ids = probabilities.sort(stable=True, dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered * (before < sampling.top_p)
    return ids.gather(-1, _inverse(kept, drawn)[:, None])[:, 0]


def top_logprobs(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest tokens of each row: log-probabilities and ids, both [B, count]."""
    values, ids = logits.float().log_softmax(-1).topk(min(count, logits.shape[-1]), -1)
    return values, ids


def _inverse(weights: Tensor, drawn: Tensor) -> Tensor:
    """The token at which the cumulated weights pass `drawn` of their sum."""
    cumulated = weights.cumsum(-1)
    total = cumulated[:, -1]
    # Rounding must not carry a number beyond the last token that has any weight.
    aim = torch.minimum(drawn.to(weights.device) * total, total * (1 - 1e-12))
    return torch.searchsorted(cumulated, aim[:, None], right=True)[:, 0]


def _penalised(logits: Tensor, sampling: Sampling, earlier: Tensor) -> Tensor:
    """Penalties as OpenAI's interface defines them, over generated tokens alone."""
    counts = logits.new_zeros(logits.shape[0], logits.shape[1] + 1)
    counts.scatter_add_(1, earlier, torch.ones_like(earlier, dtype=counts.dtype))
    counts = counts[:, :-1]
    return logits - sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)
