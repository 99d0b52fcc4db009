"""Losses and gradients against the model's own forward pass and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from plot_exp.attacks.batches import in_batches
from plot_exp.attacks.finish import random_slots
from plot_exp.attacks.model import AttackedModel, SlotLosses
from plot_exp.attacks.prompt import AttackedPrompt
from plot_exp.config.attacks import INITIAL
from plot_exp.data.behaviours import Behaviour
from plot_exp.errors import RunError
from plot_exp.models.policy import Policy


def plain_loss(model: AttackedModel, prompt: AttackedPrompt, slot: list[int]) -> Tensor:
    """Straight from the model's logits, one sequence, no cache."""
    ids = torch.tensor([[*prompt.full(slot), *prompt.target]])
    logits = model.policy.model(input_ids=ids).logits[0]
    length = len(prompt.target)
    return F.cross_entropy(logits[-length - 1 : -1].double(), ids[0, -length:])


@pytest.mark.parametrize("cached", [True, False])
def test_losses_are_those_of_whole_sequences(
    attacked: AttackedModel, behaviour: Behaviour, cached: bool
) -> None:
    prompt = attacked.prompt(behaviour, INITIAL)
    losses = SlotLosses(attacked, prompt, batch_size=3, cached=cached)
    assert (losses.cache is not None) == cached
    rows = random_slots(attacked, prompt, 8, 20, seed=1)
    with torch.no_grad():
        expected = torch.stack([plain_loss(attacked, prompt, row) for row in rows.tolist()])
    assert expected.std() > 0.01
    # Twice: a shared cache must not remember the first batch.
    for _ in range(2):
        torch.testing.assert_close(losses.of_ids(rows).double(), expected, rtol=1e-4, atol=1e-5)


def test_losses_of_texts_of_any_length_are_those_of_whole_sequences(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    texts = ["hello", "Please tell me how many", "the answer is 42, because seven times six"]
    target = attacked.tokeniser.response_ids([behaviour.target])[0][:-1]
    found = attacked.losses_of_texts(texts, target, batch_size=2)
    for text, loss in zip(texts, found, strict=True):
        prompt = attacked.prompt(behaviour, INITIAL)
        prompt.before, prompt.after = prompt.encode(text), ()
        assert loss == pytest.approx(float(plain_loss(attacked, prompt, []).detach()), rel=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_token_gradients_agree_with_finite_differences(
    qwen_dir: Path,
    attack_model: Callable[..., AttackedModel],
    behaviour: Behaviour,
    cached: bool,
) -> None:
    """GPT-2, whose every operation is in float64: Llama's and Qwen's norms round to float32."""
    shape = {"vocab_size": 416, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
    torch.manual_seed(0)
    made = GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.3)).double().eval()
    model = AttackedModel(Policy(made), attack_model(qwen_dir).tokeniser)
    prompt = model.prompt(behaviour, INITIAL)
    losses = SlotLosses(model, prompt, cached=cached)
    assert (losses.cache is not None) == cached
    gradient, loss = losses.gradient(prompt.slot)
    assert gradient.shape == (len(prompt.slot), 416)
    assert loss == pytest.approx(float(plain_loss(model, prompt, list(prompt.slot)).detach()))
    base = F.one_hot(torch.tensor(prompt.slot), 416).double()
    step = 1e-5
    for position, token in [(0, 30), (0, 301), (7, 5), (len(prompt.slot) - 1, 77)]:
        values = []
        for sign in (1, -1):
            weights = base.clone()
            weights[position, token] += sign * step
            with torch.no_grad():
                values.append(float(losses.of_embeddings((weights @ model.table)[None])[0]))
        measured = (values[0] - values[1]) / (2 * step)
        assert float(gradient[position, token]) == pytest.approx(measured, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_model_with_sliding_windows_goes_without_the_shared_cache(
    qwen_dir: Path, attack_model: Callable[..., AttackedModel], behaviour: Behaviour, scaled: bool
) -> None:
    """Gemma 2 caps its logits; Gemma 3 scales embeddings at the table."""
    shape = {
        "vocab_size": 416,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 8,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    made = (
        Gemma3ForCausalLM(Gemma3TextConfig(**shape))
        if scaled
        else Gemma2ForCausalLM(Gemma2Config(**shape))
    )
    model = AttackedModel(Policy(made.eval()), attack_model(qwen_dir).tokeniser)
    prompt = model.prompt(behaviour, INITIAL)
    losses = SlotLosses(model, prompt)
    assert losses.cache is None
    rows = random_slots(model, prompt, 3, 20, seed=1)
    with torch.no_grad():
        expected = torch.stack([plain_loss(model, prompt, row) for row in rows.tolist()])
    torch.testing.assert_close(losses.of_ids(rows).double(), expected, rtol=1e-4, atol=1e-4)


def test_batches_halve_where_memory_runs_out_and_nothing_is_lost() -> None:
    seen: list[int] = []

    def function(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        if len(rows) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows * 2

    found, size = in_batches(function, torch.arange(23), 16)
    assert found.tolist() == [2 * number for number in range(23)]
    assert size == 4
    assert seen[:3] == [16, 8, 4]
    assert max(seen[3:]) <= 4


def test_a_single_row_that_does_not_fit_is_said_and_other_errors_pass_through() -> None:
    def starved(rows: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    def wrong(rows: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RunError, match="single candidate"):
        in_batches(starved, torch.arange(3), 2)
    with pytest.raises(RuntimeError, match="shapes"):
        in_batches(wrong, torch.arange(3), 2)


def test_an_attack_leaves_weights_and_modes_as_they_were(attacked: AttackedModel) -> None:
    policy = attacked.policy.train()
    before = [parameter.requires_grad for parameter in policy.parameters()]
    with attacked.attacked():
        assert not policy.training
        assert not policy.trainable()
    assert policy.training
    assert [parameter.requires_grad for parameter in policy.parameters()] == before
    assert any(before)


def test_the_shared_cache_is_taken_under_autocast_too(
    attacked: AttackedModel, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixed precision rounds the two ways apart, by more than fp32 does."""
    prompt = attacked.prompt(behaviour, INITIAL)
    original = SlotLosses._losses

    def rounded(self: SlotLosses, slot: Tensor) -> Tensor:
        found = original(self, slot)
        return found if self.cache is None else found + 0.02

    monkeypatch.setattr(SlotLosses, "_losses", rounded)
    assert SlotLosses(attacked, prompt).cache is None
    with torch.autocast("cpu", torch.bfloat16):
        assert SlotLosses(attacked, prompt).cache is not None


def test_losses_of_a_bfloat16_model_are_finer_than_bfloat16(
    saved_model: Path, attack_model: Callable[..., AttackedModel], behaviour: Behaviour
) -> None:
    """Between 4 and 8 bfloat16 knows 128 numbers: most candidates of a step would be equal."""
    model = attack_model(saved_model, dtype="bfloat16")
    prompt = model.prompt(behaviour, INITIAL)
    losses = SlotLosses(model, prompt)
    rows = random_slots(model, prompt, 32, 20, seed=1)
    assert len(set(losses.of_ids(rows).tolist())) == len({tuple(row) for row in rows.tolist()})
    gradient, loss = losses.gradient(rows[0].tolist())
    assert loss == pytest.approx(float(losses.of_ids(rows[:1])[0]), rel=1e-2)
    assert bool(gradient.float().isfinite().all())
