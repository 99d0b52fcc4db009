"""Scores and their gradients in every parameter are those of a plain transformers forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
)

from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.ops.embedding import FrozenEmbedding
from plot_exp.ops.scores import Pool, Request, Side

from plain_head import plain_outputs, pulled
from scoring_models import VOCABULARY, toy_batch

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GROUPED = SHAPE | {"num_key_value_heads": 1}
CONFIGS = {
    "qwen2, tied": lambda: Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "qwen2, untied": lambda: Qwen2Config(**GROUPED, tie_word_embeddings=False),
    "llama, tied": lambda: LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "llama, untied": lambda: LlamaConfig(**GROUPED),
    "gpt_neox, tied": lambda: GPTNeoXConfig(**SHAPE, tie_word_embeddings=True),
    "gpt_neox, untied": lambda: GPTNeoXConfig(**SHAPE),
    "gemma2, soft-cap": lambda: Gemma2Config(**GROUPED, head_dim=8, final_logit_softcapping=2.0),
    "granite, scaling": lambda: GraniteConfig(**GROUPED, logits_scaling=3.0),
    "cohere, scaling": lambda: CohereConfig(**GROUPED, logit_scale=0.3),
    "phi, bias": lambda: PhiConfig(**SHAPE),
}
# Their normalisation is computed in fp32 whatever the model's precision.
SINGLE_INSIDE = {"gemma2, soft-cap", "cohere, scaling"}
POOLS: frozenset[tuple[Side, Pool]] = frozenset(
    {
        ("chosen", "batch"),
        ("chosen", "log_batch"),
        ("rejected", "response"),
        ("rejected", "position"),
    }
)


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    if model.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    return model


def request() -> Request:
    vectors = torch.randn(VOCABULARY, 4, generator=torch.Generator().manual_seed(2))
    names = frozenset({"entropy", "label_cost", "reference_kl"})
    return Request(POOLS, names, FrozenEmbedding(vectors.double()))


def plain_logits(model: Any) -> Tensor:
    """[N, V] at the positions that predict the toy batch's response tokens."""
    _, rows = toy_batch()
    found = []
    for prompt, response in rows:
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        found.append(logits[len(prompt) - 1 : -1])
    return torch.cat(found)


def both_ways(name: str, chunk: Any, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, then gradients in every parameter: plainly, and of the scoring path."""
    model = model_of(name).to(dtype)
    policy = Policy(model, chunk)
    batch, _ = toy_batch()
    reference = frozen_copy(policy)
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            noise = torch.Generator().manual_seed(place)
            parameter += 0.02 * torch.randn(parameter.shape, generator=noise).to(dtype)
    wanted = request()
    scores = policy(
        batch, wanted, reference=reference.states(reference(batch, wanted.of_reference()))
    )
    reference_logits = plain_logits(reference.model).detach()
    expected = plain_outputs(plain_logits(model), batch, wanted, reference_logits)
    found, parameters = scores.tensors(), policy.trainable()
    assert len(parameters) == len(list(model.parameters()))
    return expected + pulled(expected, parameters), found + pulled(found, parameters)


@pytest.mark.parametrize("chunk", [3, "auto"])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_parameter_gradients(name: str, chunk: Any) -> None:
    expected, found = both_ways(name, chunk, torch.float64)
    tolerance = 1e-5 if name in SINGLE_INSIDE else 1e-8
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["llama, untied", "qwen2, tied", "gpt_neox, untied"])
def test_in_single_precision(name: str) -> None:
    expected, found = both_ways(name, 3, torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm().clamp_min(1e-2)


def test_activation_checkpointing_changes_nothing() -> None:
    batch, _ = toy_batch()
    found = []
    for checkpointing in (False, True):
        policy = Policy(model_of("llama, untied").train(), 3)
        if checkpointing:
            policy.checkpoint_activations()
        outputs = policy(batch, Request(POOLS)).tensors()
        found.append(pulled(outputs, policy.trainable()))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.slow
def test_a_compiled_policy_gives_the_same() -> None:
    batch, _ = toy_batch()
    policy = Policy(model_of("llama, untied"), 3)
    expected = policy(batch, Request(POOLS)).tensors()
    torch._dynamo.reset()
    compiled: Any = torch.compile(policy, backend="aot_eager")
    found = compiled(batch, Request(POOLS)).tensors()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for one, other in zip(
        pulled(found, policy.trainable()), pulled(expected, policy.trainable()), strict=True
    ):
        assert (one - other).norm() <= 1e-4 * other.norm().clamp_min(1e-2)


class TestAdapters:
    """LoRA on the head itself: its forward pass is repeated chunk by chunk."""

    def adapted(self, dropout: float = 0.0, chunk: Any = 3) -> Policy:
        peft = pytest.importorskip("peft", reason="adapters need peft")
        model = model_of("llama, untied").double()
        settings = peft.LoraConfig(
            r=3, target_modules=["q_proj", "lm_head"], lora_dropout=dropout, init_lora_weights=False
        )
        peft.inject_adapter_in_model(settings, model)
        return Policy(model.double(), chunk)

    def test_outputs_and_gradients(self) -> None:
        policy = self.adapted()
        assert not policy.head.plain
        batch, _ = toy_batch()
        assert any("lm_head" in name for name, p in policy.named_parameters() if p.requires_grad)
        expected = plain_outputs(plain_logits(policy.model), batch, Request(POOLS))
        found = policy(batch, Request(POOLS)).tensors()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            pulled(found, policy.trainable()), pulled(expected, policy.trainable())
        )

    def test_dropout_is_drawn_again_as_it_was(self) -> None:
        """The gradient is that of the masks which the values were computed with."""
        policy = self.adapted(dropout=0.5, chunk=2)
        policy.model.lm_head.train()
        batch, _ = toy_batch()
        weight = policy.model.lm_head.lora_B["default"].weight

        def value() -> Tensor:
            torch.manual_seed(5)
            return policy(batch, Request()).token_logps.sum()

        loss = value()
        torch.manual_seed(6)
        (gradient,) = torch.autograd.grad(loss, weight)
        step = 1e-6 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():
            weight += step
            above = value()
            weight -= 2 * step
            below = value()
        torch.testing.assert_close((above - below) / 2, (gradient * step).sum(), rtol=1e-5, atol=0)
