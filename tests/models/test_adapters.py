"""Adapters: fresh ones change nothing, only they are trained, and what is saved is what was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from plot_exp.config.model import LoRAConfig, ModelConfig
from plot_exp.data.collate import collate_padded
from plot_exp.errors import UserError
from plot_exp.models.adapters import (
    add_adapter,
    as_started,
    has_adapter,
    load_adapter,
    merge,
    save_adapter,
)
from plot_exp.models.dropout import set_dropout
from plot_exp.models.load import check, load_model
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

from scoring_models import ARCHITECTURES, tiny_model, toy_batch, toy_examples

RANK = LoRAConfig(rank=3)
IDS = torch.arange(5, 15)[None]


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The trainable weights, somewhere else."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("config", [RANK, LoRAConfig(rank=3, dora=True, rslora=True)])
def test_a_fresh_adapter_changes_nothing_and_is_all_that_is_trained(
    architecture: str, config: LoRAConfig
) -> None:
    model = tiny_model(architecture)
    before = logits(model)
    add_adapter(model, config, seed=0)

    torch.testing.assert_close(logits(model), before)
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("head" in name or "embed" in name for name in trained)
    policy = Policy(model)
    assert len(policy.trainable()) == len(trained)
    assert not torch.allclose(logits(moved(model)), before)


def test_the_seed_alone_determines_a_fresh_adapter() -> None:
    def drawn(seed: int) -> torch.Tensor:
        model = tiny_model("llama")
        torch.rand(seed + 1)  # what was drawn before does not matter
        add_adapter(model, RANK, seed)
        return torch.cat([one.flatten() for one in model.parameters() if one.requires_grad])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (LoRAConfig(rank=4), 2.0),
        (LoRAConfig(rank=4, alpha=2.0), 0.5),
        (LoRAConfig(rank=4, alpha=2.0, rslora=True), 1.0),
    ],
)
def test_the_scale_is_alpha_over_the_rank_or_its_root(config: LoRAConfig, scale: float) -> None:
    model = tiny_model("llama")
    weight = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    add_adapter(model, config, seed=0)
    moved(model)
    layer = model.model.layers[0].self_attn.q_proj
    low, high = layer.lora_A.default.weight, layer.lora_B.default.weight
    hidden = torch.randn(2, 16)
    expected = hidden @ (weight + scale * high @ low).T
    torch.testing.assert_close(layer(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [RANK, LoRAConfig(rank=3, dora=True)])
def test_merging_keeps_the_outputs_and_leaves_a_plain_model(config: LoRAConfig) -> None:
    model = tiny_model("qwen2")
    names = set(model.state_dict())
    add_adapter(model, config, seed=0)
    expected = logits(moved(model))

    merge(model)

    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert set(model.state_dict()) == names
    assert not has_adapter(model)
    assert all(one.requires_grad for one in model.parameters())


@pytest.fixture
def saved(llama_dir: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """The folder of a trained adapter of the Llama model, and the logits with it."""
    model = load_model(ModelConfig(name=str(llama_dir)))
    add_adapter(model, LoRAConfig(rank=3, dora=True), seed=0)
    expected = logits(moved(model))
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(model, folder, str(llama_dir))
    return folder, expected


def test_peft_itself_reads_what_is_saved(saved: tuple[Path, torch.Tensor], llama_dir: Path) -> None:
    folder, expected = saved
    plain = AutoModelForCausalLM.from_pretrained(llama_dir)
    model = peft.PeftModel.from_pretrained(plain, str(folder))
    torch.testing.assert_close(logits(model), expected)


@pytest.mark.parametrize("rank", [None, 3])
def test_a_folder_with_an_adapter_gives_the_model_with_it(
    saved: tuple[Path, torch.Tensor], rank: int | None
) -> None:
    folder, expected = saved
    config = ModelConfig(name=str(folder), lora=LoRAConfig(rank=rank))
    check(config)
    model = load_model(config)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert has_adapter(model) == (rank is not None)


def test_the_start_is_told_apart_from_the_weights_beneath(
    saved: tuple[Path, torch.Tensor], llama_dir: Path
) -> None:
    """The policy came with an adapter and trains it: its start is the model with that adapter."""
    folder, expected = saved
    model = load_model(ModelConfig(name=str(folder), lora=RANK))
    beneath = logits(load_model(ModelConfig(name=str(llama_dir))))
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    after = logits(moved(model))

    with as_started(model):
        torch.testing.assert_close(logits(model), expected)
    assert torch.equal(logits(model), after)
    assert not torch.allclose(expected, beneath)
    assert not torch.allclose(expected, after)
    assert [name for name, one in model.named_parameters() if one.requires_grad] == trained
    assert not any(".start." in name for name in trained)


def test_what_does_not_fit_is_said(
    saved: tuple[Path, torch.Tensor], qwen_dir: Path, tmp_path: Path
) -> None:
    folder, _ = saved
    with pytest.raises(UserError, match=r"rank=8.*has rank 3; write model\.lora\.rank=3"):
        check(ModelConfig(name=str(folder), lora=LoRAConfig(rank=8)))
    for targets in (["qproj"], ["q_proj", "qproj"]):
        with pytest.raises(UserError, match=r"qproj is no layer.*linear layers are.*q_proj"):
            add_adapter(tiny_model("llama"), LoRAConfig(rank=2, target_modules=targets), 0)
    other = load_model(ModelConfig(name=str(qwen_dir)))
    facts = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(facts | {"target_modules": ["q_proj"], "base_model_name_or_path": "/no/where"})
    )
    with pytest.raises(UserError, match="stands only in the adapter"):
        load_adapter(other, folder, trained=False)
    with pytest.raises(UserError, match="/no/where, which is not there"):
        check(ModelConfig(name=str(folder)))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="peft_type LORA"):
        check(ModelConfig(name=str(folder)))


def test_an_adapters_dropout_belongs_to_the_tokens() -> None:
    """The same numbers alone and in a batch, and others without dropout."""
    model = tiny_model("qwen2").double()
    set_dropout(model, 0.0)
    add_adapter(model, LoRAConfig(rank=3, dropout=0.5), seed=0)
    policy = Policy(moved(model))
    policy.train()
    assert policy.drops
    whole = policy(toy_batch()[0], Request(), dropout_seed=3).token_logps
    alone = [
        policy(collate_padded([item], 0), Request(), dropout_seed=3).token_logps
        for item in toy_examples()
    ]
    # The architecture's norms run in fp32.
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(policy.eval()(toy_batch()[0], Request()).token_logps, whole)
    set_dropout(policy, 0.0)
    assert policy.drops


def test_the_library_beneath_does_not_tell_of_kernels_that_it_lacks() -> None:
    """peft imports bitsandbytes wherever it is installed, quantised weights or not."""
    program = (
        "import logging; from plot_exp.models.adapters import _peft; _peft();"
        "logging.getLogger('bitsandbytes.backends.cpu.ops').warning('no kernel')"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stderr.decode() == ""
