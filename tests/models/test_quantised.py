"""Quantised weights beneath an adapter: what is computed, trained, kept and exported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from plot_exp.config.model import LoRAConfig, ModelConfig
from plot_exp.errors import UserError
from plot_exp.models.adapters import as_started, has_adapter, merge
from plot_exp.models.load import load_model, put_adapter
from plot_exp.models.policy import Policy, freeze, frozen_copy, frozen_names
from plot_exp.models.quantised import is_quantised
from plot_exp.models.reference import PolicyStart
from plot_exp.ops.scores import Request

from scoring_models import toy_batch

IDS = torch.arange(5, 25)[None]
# arXiv 2305.14314, appendix E.
BELOW = [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0]
ABOVE = [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
NF4 = torch.tensor([*BELOW, *ABOVE])


def nf4(weight: torch.Tensor) -> torch.Tensor:
    """The nearest level in blocks of 64 numbers, each with its largest as the scale."""
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / scale)[..., None].sub(NF4).abs().argmin(-1)
    return (NF4[nearest] * scale).reshape(weight.shape)


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def adapted(folder: Path, **lora: object):
    config = ModelConfig(name=str(folder), lora=LoRAConfig(rank=3, quantised="nf4", **lora))
    model = load_model(config)
    put_adapter(model, config, seed=0)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.usefixtures("bitsandbytes")
def test_the_decoders_linear_layers_alone_are_quantised(saved_model: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(saved_model)
    model = load_model(ModelConfig(name=str(saved_model), lora=LoRAConfig(rank=3, quantised="nf4")))
    assert is_quantised(model)
    layer = model.model.layers[0].mlp.down_proj
    assert layer.weight.dtype == torch.uint8
    # Four bits a weight, and the scales.
    assert layer.weight.numel() == plain.model.layers[0].mlp.down_proj.weight.numel() // 2
    assert torch.equal(model.get_output_embeddings().weight, plain.get_output_embeddings().weight)
    assert torch.equal(model.model.embed_tokens.weight, plain.model.embed_tokens.weight)
    exact = plain.model.layers[0].mlp.down_proj.weight.detach()
    found, expected = layer(torch.eye(layer.in_features)).T, nf4(exact)
    # The scales are quantised too, which adds little to what four bits lose.
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert (expected - exact).norm() > 0.06 * exact.norm()


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("variant", [{}, {"rslora": True}, {"dora": True}])
def test_the_adapter_alone_is_trained_and_merging_keeps_what_was_computed(
    qwen_dir: Path, tmp_path: Path, variant: dict[str, object]
) -> None:
    model = adapted(qwen_dir, **variant)
    policy = Policy(model)
    trained = [name for name, one in policy.named_parameters() if one.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    # What a checkpoint keeps is what is trained.
    assert policy.state_dict().keys() - frozen_names(policy) == set(trained)
    policy(toy_batch()[0], Request()).token_logps.sum().backward()
    assert all(one.grad is not None for one in policy.trainable())

    expected = logits(model)
    merge(model)
    assert not has_adapter(model)
    assert not is_quantised(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-3, atol=1e-3)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again), logits(model))


@pytest.mark.usefixtures("bitsandbytes")
def test_the_reference_is_the_quantised_start(qwen_dir: Path) -> None:
    config = ModelConfig(name=str(qwen_dir), lora=LoRAConfig(rank=3, quantised="nf4"))
    start = Policy(load_model(config.model_copy(update={"lora": LoRAConfig(quantised="nf4")})))
    policy = Policy(adapted(qwen_dir))
    shared = PolicyStart(policy)
    shared.moved = True
    batch, _ = toy_batch()
    expected = freeze(start)(batch, Request()).token_logps
    assert torch.equal(shared(batch, Request()).token_logps, expected)
    with as_started(policy.model):
        copied = frozen_copy(policy)
    assert not torch.allclose(policy.eval()(batch, Request()).token_logps, expected)
    assert copied.device == policy.device


def test_without_bitsandbytes_one_sentence_says_so(qwen_dir, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    config = ModelConfig(name=str(qwen_dir), lora=LoRAConfig(rank=3, quantised="nf4"))
    with pytest.raises(UserError, match=r"model\.lora\.quantised needs bitsandbytes"):
        load_model(config)
