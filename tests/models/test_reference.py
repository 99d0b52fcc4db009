"""The reference's forms say the same: a copy, the policy with its adapter off, kept scores."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from plot_exp.config.model import LoRAConfig, ModelConfig
from plot_exp.errors import RunError
from plot_exp.models.adapters import add_adapter, save_adapter
from plot_exp.models.load import load_model, put_adapter
from plot_exp.models.policy import Policy, freeze, frozen_copy
from plot_exp.models.reference import CachedReference, PolicyStart
from plot_exp.models.reference_cache import ReferenceCache
from plot_exp.ops.scores import Request
from plot_exp.progress import silent

from scoring_models import tiny_model, toy_batch, toy_examples

BATCH, _ = toy_batch()
KL = Request(tokens=frozenset({"reference_kl"}))


def policy_with_adapter(**settings: object) -> Policy:
    model = tiny_model("qwen2").double()
    add_adapter(model, LoRAConfig(rank=3, **settings), seed=0)
    return Policy(model)


def move(policy: Policy) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)


def test_with_the_adapter_off_it_is_the_copy() -> None:
    policy = policy_with_adapter()
    copy, shared = frozen_copy(policy), PolicyStart(policy)
    shared.moved = True
    move(policy)
    policy.train()
    trained = [id(one) for one in policy.trainable()]

    assert torch.equal(
        shared(BATCH, Request()).token_logps, copy(BATCH, Request()).token_logps.detach()
    )
    assert not torch.allclose(
        shared(BATCH, Request()).token_logps, policy(BATCH, Request()).token_logps
    )
    assert policy.training
    assert [id(one) for one in policy.trainable()] == trained


def test_a_graph_made_before_the_adapter_was_off_keeps_its_gradients() -> None:
    policy = policy_with_adapter()
    move(policy)
    policy.checkpoint_activations()
    policy.train()
    policy(BATCH, Request()).token_logps.sum().backward()
    expected = [one.grad.clone() for one in policy.trainable()]
    policy.zero_grad()

    found = policy(BATCH, Request()).token_logps.sum()
    PolicyStart(policy)(BATCH, Request())
    found.backward()

    assert all(
        torch.equal(one.grad, other)
        for one, other in zip(policy.trainable(), expected, strict=True)
    )


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"]])
def test_the_divergence_from_the_shared_weights_is_that_from_a_copy(
    targets: str | list[str],
) -> None:
    """With an adapter on the head, the reference's head is the bare one."""
    model = tiny_model("llama").double()
    add_adapter(model, LoRAConfig(rank=3, target_modules=targets), seed=0)
    policy = Policy(model)
    copy, shared = frozen_copy(policy), PolicyStart(policy)
    move(policy)
    found, gradients = [], []
    for reference in (copy, shared):
        with torch.no_grad():
            states = reference.states(reference(BATCH, KL.of_reference()))
        policy.zero_grad()
        found.append(policy(BATCH, KL, reference=states).tokens["reference_kl"])
        found[-1].sum().backward()
        gradients.append([one.grad for one in policy.trainable()])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)
    assert bool((found[0] > 0).all())


def test_weights_that_moved_are_no_reference() -> None:
    policy = Policy(tiny_model("llama"))
    shared = PolicyStart(policy)
    shared(BATCH, Request())
    shared.moved = True
    with pytest.raises(RuntimeError, match="have moved"):
        shared(BATCH, Request())


def cached(folder: Path, policy: Policy) -> CachedReference:
    cache = ReferenceCache(folder, "model", toy_examples())
    with torch.no_grad():
        stored = cache.fill(lambda _: [BATCH], lambda one: policy(one, Request()), silent)
    return CachedReference([stored], policy.live, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_scores_are_the_live_ones_to_the_last_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    policy = Policy(tiny_model("qwen2").to(dtype))
    live = policy(BATCH, Request())
    found = cached(tmp_path, policy)(BATCH, Request())
    assert torch.equal(found.token_logps, live.token_logps)
    assert torch.equal(found.sums(), live.sums())
    assert torch.equal(found.response_of_token, live.response_of_token)


def test_an_example_that_was_not_kept_is_refused(tmp_path: Path) -> None:
    reference = cached(tmp_path, Policy(tiny_model("qwen2")))
    other, _ = toy_batch()
    item = other.sources[0]
    changed = type(item)(item.example, (9, *item.prompt_ids), item.response_ids)
    batch = type(other)(**{**vars(other), "sources": (changed, *other.sources[1:])})
    with pytest.raises(RunError, match="not in its cache"):
        reference(batch, Request())
    with pytest.raises(ValueError, match="log-probabilities only"):
        reference(other, KL.of_reference())


@pytest.mark.parametrize("variant", [{}, {"rslora": True}, {"dora": True}])
@pytest.mark.parametrize("comes_with", [True, False])
def test_the_reference_is_the_start_with_what_it_came_with(
    llama_dir: Path, tmp_path: Path, variant: dict[str, bool], comes_with: bool
) -> None:
    """Base and adapter for a policy that began from an adapter's folder, else the base alone."""
    lora = LoRAConfig(rank=3, alpha=5.0, **variant)
    plain = ModelConfig(name=str(llama_dir), lora=lora)
    config = plain
    expected = AutoModelForCausalLM.from_pretrained(llama_dir)
    if comes_with:
        saved = load_model(plain)
        put_adapter(saved, plain, seed=5)
        move(Policy(saved))
        save_adapter(saved, tmp_path, str(llama_dir))
        config = plain.model_copy(update={"name": str(tmp_path)})
        expected = peft.PeftModel.from_pretrained(expected, str(tmp_path)).merge_and_unload()
    model = load_model(config)
    put_adapter(model, config, seed=7)
    policy = Policy(model)
    copied, shared = frozen_copy(policy), PolicyStart(policy)
    shared.moved = True
    move(policy)

    right = freeze(Policy(expected))(BATCH, Request()).token_logps
    for reference in (shared, copied):
        found = reference(BATCH, Request()).token_logps
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(policy.eval()(BATCH, Request()).token_logps, right, atol=1e-2)
    if comes_with:
        beneath = Policy(AutoModelForCausalLM.from_pretrained(llama_dir)).eval()
        assert not torch.allclose(beneath(BATCH, Request()).token_logps, right, atol=1e-2)
