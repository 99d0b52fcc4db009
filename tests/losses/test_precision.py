"""Every term in fp32 agrees with itself in fp64, over random and extreme scores."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from plot_exp.config.losses import (
    TERMS,
    AOTConfig,
    AOTUnpairedConfig,
    DEFTConfig,
    DPOConfig,
    EMOConfig,
    IPOConfig,
    KLConfig,
    PLOTConfig,
    PROConfig,
    TDPOConfig,
)
from plot_exp.losses.base import Term
from plot_exp.ops.scores import Scores

from loss_scores import context, ranked, scores, totals

VOCABULARY = 50
LENGTHS = [(3, 2), (1, 4), (2, 2, 5), (6, 1)]
SECTIONS: dict[str, Any] = {
    **{name: section() for name, section in TERMS.items()},
    "dpo smoothed": DPOConfig(label_smoothing=0.3),
    "aot hinge": AOTConfig(relaxation="squared_hinge"),
    "aot_unpaired squares": AOTUnpairedConfig(relaxation="least_squares"),
    "pro alone": PROConfig(sft_weight=0),
    "ipo mean": IPOConfig(reduction="mean"),
    "tdpo 1": TDPOConfig(variant=1),
    "emo capped": EMOConfig(cap=3.0),
    "kl reverse": KLConfig(direction="reverse", transform="softmax"),
    "deft floored": DEFTConfig(floor=-4.0),
    "plot sliced": PLOTConfig(transport="sliced", directions=4),
    "plot path": PLOTConfig(transport="path"),
}


def built(name: str) -> Term:
    generator = torch.Generator().manual_seed(1)
    facts = context(
        torch.randn(VOCABULARY, 6, generator=generator),
        torch.randint(0, 9, (VOCABULARY,), generator=generator).tolist(),
        torch.randint(0, 9, (VOCABULARY,), generator=generator).tolist(),
        allowed=[token > 2 for token in range(VOCABULARY)],
    )
    module = importlib.import_module(f"plot_exp.losses.{name.split()[0]}")
    term: Term = module.TERM(SECTIONS[name], facts)
    return term


def random_scores(scale: float, seed: int) -> Scores:
    """Token log-probabilities and pooled distributions of random logits of that scale."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [n for row in LENGTHS for n in row]
    logits = scale * torch.randn(sum(lengths), VOCABULARY, generator=generator, dtype=torch.float64)
    logps = torch.log_softmax(logits, -1)
    rows = [(-scale * torch.rand(n, generator=generator)).tolist() for n in lengths]
    pooled = {("chosen", "batch"): logps.exp().sum(0), ("chosen", "log_batch"): logps.sum(0)}
    tokens = {
        "predicting_hidden": logits[:, :6],
        "reference_kl": scale * torch.rand(len(logits), generator=generator, dtype=torch.float64),
        "label_cost": 2 * torch.rand(len(logits), generator=generator, dtype=torch.float64),
    }
    return scores(rows, pooled, tokens)


def evaluated(term: Term, dtype: torch.dtype, scale: float) -> tuple[float, list[torch.Tensor]]:
    """The value and the gradients in the scores."""
    policy, reference = (
        found.replace_tensors([tensor.to(dtype) for tensor in found.tensors()])
        for found in (random_scores(scale, 0), random_scores(scale, 1))
    )
    # Only what the term asks for, so that every leaf it has is one it reads.
    wanted = {key: policy.distributions[key] for key in term.request.distributions}
    tokens = {name: policy.tokens[name] for name in term.request.tokens}
    leaves = replace(policy, distributions=wanted, tokens=tokens).leaves()
    responses = ranked(*LENGTHS)
    loss = term(leaves, reference, responses, totals(responses)).loss
    tensors = leaves.tensors()
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    # In p, transport's gradient turns on the sign of a difference; in log p, which is what reaches
    # the model, tokens without mass do not count.
    return loss.item(), [
        gradient * (leaf.detach() if (leaf >= 0).all() else 1)
        for leaf, gradient in zip(tensors, gradients, strict=True)
        if gradient is not None
    ]


@pytest.mark.parametrize("scale", [1.0, 8.0, 60.0])
@pytest.mark.parametrize("name", SECTIONS)
def test_single_precision_agrees_with_double(name: str, scale: float) -> None:
    exact, exact_gradients = evaluated(built(name), torch.float64, scale)
    single, gradients = evaluated(built(name), torch.float32, scale)

    assert single == pytest.approx(exact, rel=1e-5, abs=1e-7)
    for found, expected in zip(gradients, exact_gradients, strict=True):
        assert torch.isfinite(found).all()
        size = float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5 * size)


@pytest.mark.parametrize("name", SECTIONS)
def test_mixed_precision_leaves_the_terms_alone(name: str) -> None:
    """A step in bf16-mixed evaluates them under autocast: no product may be taken in bf16."""
    plain, gradients = evaluated(built(name), torch.float32, 8.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, found = evaluated(built(name), torch.float32, 8.0)

    assert mixed == pytest.approx(plain, rel=1e-6)
    torch.testing.assert_close(found, gradients, rtol=1e-5, atol=1e-7)
