"""Directories as a hub delivers them: sharded weights with their index, tokenizer, template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from plot_exp.config.model import ModelConfig
from plot_exp.data.tokenise import PLAIN_TEMPLATE, ChatTokeniser
from plot_exp.errors import UserError
from plot_exp.models.load import check, load_model, load_tokenizer

INDEX = "model.safetensors.index.json"
CLASSES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
SHAPE = {
    "vocab_size": 416,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def delivered(
    folder: Path,
    source: Path,
    architecture: str = "llama",
    *,
    tied: bool = False,
    jinja: bool = True,
) -> Path:
    """A directory as a hub has it, in bfloat16.

    Args:
        source: where the tokenizer is.
        jinja: the template stands in a file of its own, as newer ones have it.
    """
    shape, model_class = CLASSES[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(shape(**SHAPE, tie_word_embeddings=tied)).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=[2, 7], temperature=0.6, do_sample=True)
    model.save_pretrained(folder, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = settings.pop("chat_template", None) or (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if jinja:
        (folder / "chat_template.jinja").write_text(template)
    else:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folder(tmp_path, llama_dir):
    return delivered(tmp_path / "model", llama_dir)


def named(folder: Path, **settings) -> ModelConfig:
    return ModelConfig(name=str(folder), **settings)


@pytest.mark.parametrize("architecture", CLASSES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_shard_is_read(architecture, tied, tmp_path, llama_dir):
    folder = delivered(tmp_path / "model", llama_dir, architecture, tied=tied)
    assert len(list(folder.glob("*.safetensors"))) >= 3
    config = named(folder)
    check(config)
    model = load_model(config)
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is embedding) == tied
    assert model.dtype == torch.float32
    assert load_model(config, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert load_model(named(folder, dtype="auto")).dtype == torch.bfloat16


def test_generation_settings_come_along_and_are_written_again(folder, tmp_path):
    model = load_model(named(folder))
    assert model.generation_config.eos_token_id == [2, 7]
    model.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again/generation_config.json").read_text())
    assert (again["eos_token_id"], again["temperature"]) == ([2, 7], 0.6)


def test_the_template_is_the_same_from_either_place(tmp_path, llama_dir):
    chat = [{"role": "user", "content": "How many?"}]
    rendered = [
        load_tokenizer(
            named(delivered(tmp_path / str(jinja), llama_dir, jinja=jinja))
        ).apply_chat_template(chat, tokenize=False)
        for jinja in (True, False)
    ]
    assert rendered[0] == rendered[1] == "<s><|turn|>user\nHow many?</s>"


def test_without_a_template_it_is_the_plain_one(folder):
    (folder / "chat_template.jinja").unlink()
    tokeniser = ChatTokeniser(load_tokenizer(named(folder)))
    assert tokeniser.template == PLAIN_TEMPLATE


def without_a_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[1].unlink()


def another_index(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    names = sorted(set(index["weight_map"].values()))
    index["weight_map"]["lm_head.weight"] = names[-1]
    index["weight_map"]["model.norm.weight"] = names[0]
    (folder / INDEX).write_text(json.dumps(index))


def cut_short(folder: Path) -> None:
    file = sorted(folder.glob("*.safetensors"))[2]
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_the_header(folder: Path) -> None:
    file = sorted(folder.glob("*.safetensors"))[2]
    file.write_bytes(file.read_bytes()[:20])


def pointers(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def pickled_alone(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_name("pytorch_" + file.stem + ".bin"))
    (folder / INDEX).rename(folder / "pytorch_model.bin.index.json")


def nothing(folder: Path) -> None:
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()


def outside(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without_a_shard, r"model-00002-of-\d+\.safetensors is missing, 1 of the \d+ files"),
        (another_index, r"index\.json: says that \S+ is in model-\S+, which does not hold it"),
        (cut_short, r"model-00003-of-\d+\.safetensors: cut short, [\d,]+ bytes .* of at least"),
        (cut_in_the_header, r"model-00003-of-\d+\.safetensors: cut short, 20 bytes"),
        (pointers, r"a pointer of Git LFS, not the weights; run `git lfs pull`"),
        (pickled_alone, r"pickled weights alone \(pytorch_model-00001\S+\.bin\).*safetensors"),
        (nothing, r"holds no weights: neither model\.safetensors nor"),
        (outside, r"names \.\./elsewhere\.safetensors, which is not a file of that folder"),
        (lambda folder: (folder / INDEX).write_text("{"), r"index\.json: no index of weights"),
    ],
)
def test_what_is_wrong_with_the_weights_is_one_sentence_before_loading(folder, damage, says):
    damage(folder)
    for looked_at in (check, load_model):
        with pytest.raises(UserError, match=says) as caught:
            looked_at(named(folder))
        assert "\n" not in str(caught.value)
        assert f"model.name={folder}: the weights could not be loaded" in str(caught.value)


def test_a_missing_tokenizer_is_said(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="the tokenizer could not be loaded") as caught:
        load_tokenizer(named(folder))
    assert "\n" not in str(caught.value)


def test_adapters_beside_half_precision_are_trained_in_fp32(folder):
    from plot_exp.config.model import LoRAConfig
    from plot_exp.models.load import put_adapter

    config = named(folder, dtype="bfloat16", lora=LoRAConfig(rank=2, dora=True))
    model = load_model(config)
    put_adapter(model, config, 0)
    kinds = {(one.requires_grad, one.dtype) for one in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    logits = model(input_ids=torch.arange(4)[None]).logits
    assert logits.dtype == torch.bfloat16
