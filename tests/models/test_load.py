"""Weights come as safetensors from where the user said, or one sentence says why not."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from plot_exp.config.model import ModelConfig
from plot_exp.errors import UserError
from plot_exp.models.load import check, load_model, load_tokenizer


@pytest.fixture
def folder(qwen_dir, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(qwen_dir, tmp_path / "model")


@pytest.fixture
def offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_a_saved_model_comes_back(saved_model):
    config = ModelConfig(name=str(saved_model))
    expected = load_file(saved_model / "model.safetensors")
    found = load_model(config).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    tokenizer = load_tokenizer(config)
    assert tokenizer.decode(tokenizer("hello there", add_special_tokens=False).input_ids) == (
        "hello there"
    )


def test_pickled_weights_alone_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights could not be loaded.*safetensors"):
        load_model(ModelConfig(name=str(folder)))


def test_missing_weights_are_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    left = {name: value for name, value in weights.items() if "layers.1.mlp" not in name}
    assert len(left) < len(weights)
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"3 are missing, such as model\.layers\.1\.mlp"):
        load_model(ModelConfig(name=str(folder)))


def break_with(name, text):
    return lambda folder: (folder / name).write_text(text)


def other_width(folder):
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(shape | {"hidden_size": 64}))


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


@pytest.mark.parametrize(
    "damage",
    [
        break_with("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
        break_with("config.json", "{"),
        break_with("config.json", "{}"),
        break_with("config.json", '{"model_type": "nonesuch"}'),
        break_with("config.json", '{"model_type": "vit"}'),
        other_width,
        cut_short,
    ],
)
def test_a_damaged_model_gets_one_sentence(folder, damage):
    damage(folder)
    with pytest.raises(UserError, match="weights could not be loaded") as caught:
        load_model(ModelConfig(name=str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", '{"version": "1.0"}'])
def test_a_damaged_tokenizer_gets_one_sentence(folder, text):
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="tokenizer could not be loaded"):
        load_tokenizer(ModelConfig(name=str(folder)))


def test_a_folder_without_a_tokenizer_is_no_empty_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="tokenizer could not be loaded"):
        load_tokenizer(ModelConfig(name=str(folder)))


def without(folder, name):
    """The folder with a tokenizer that lacks one special token and gets no default for it."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop(name)
    path.write_text(json.dumps(settings))
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(shape | {"model_type": "gpt_neox"}))
    return ModelConfig(name=str(folder))


def test_a_tokenizer_without_an_end_is_refused(folder):
    config = without(folder, "eos_token")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert tokenizer.eos_token_id is None
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"eos_token": None}
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no end token"):
        load_tokenizer(config)


def test_without_a_pad_token_the_end_token_pads(folder):
    tokenizer = load_tokenizer(without(folder, "pad_token"))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.usefixtures("offline")
def test_a_hub_name_without_network_gets_one_sentence():
    config = ModelConfig(name="nobody/none-such")
    for load in (load_tokenizer, load_model):
        with pytest.raises(UserError, match=r"model\.name=nobody/none-such.*could not be loaded"):
            load(config)


def test_random_weights_take_the_shape_alone(qwen_dir):
    config = ModelConfig(name=str(qwen_dir), weights="random")
    one = load_model(config, seed=123).state_dict()
    torch.manual_seed(5)  # whatever was drawn before
    same = load_model(config, seed=123).state_dict()
    saved = AutoModelForCausalLM.from_pretrained(qwen_dir).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name: value.shape for name, value in one.items()} == {
        name: value.shape for name, value in saved.items()
    }
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(one[name], saved[name])


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float32", torch.float32)],
)
def test_dtype(qwen_dir, weights, dtype, expected):
    model = load_model(ModelConfig(name=str(qwen_dir), weights=weights, dtype=dtype))
    assert {value.dtype for value in model.parameters()} == {expected}


def test_auto_keeps_the_stored_dtype(qwen_dir, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(qwen_dir, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    for weights in ("pretrained", "random"):
        config = ModelConfig(name=str(tmp_path), weights=weights, dtype="auto")
        assert load_model(config).dtype == torch.bfloat16


def test_a_template_of_the_users_own(qwen_dir, tmp_path):
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[0]['content'] }}!")
    tokenizer = load_tokenizer(ModelConfig(name=str(qwen_dir), chat_template=str(template)))
    chat = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "hello!"


def test_home_is_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    config = ModelConfig(name="~/model")
    check(config)
    load_tokenizer(config)
    load_model(config)


@pytest.mark.parametrize("name", ["/nope", "./nope", "~/nope", "a/b/c"])
def test_a_missing_folder_is_seen_before_loading(name):
    with pytest.raises(UserError, match="there is no such directory"):
        check(ModelConfig(name=name))


def test_a_folder_without_a_model_is_seen_before_loading(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json.*save_pretrained"):
        check(ModelConfig(name=str(tmp_path)))


def test_a_folder_without_a_tokenizer_is_seen_before_loading(folder):
    check(ModelConfig(name=str(folder)))
    for pattern in ("tokenizer*", "*.jinja"):
        for file in folder.glob(pattern):
            file.unlink()
    with pytest.raises(UserError, match=r"holds no tokenizer; put tokenizer\.json"):
        check(ModelConfig(name=str(folder)))


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_configuration_is_seen_before_loading(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json there is no JSON object"):
        check(ModelConfig(name=str(folder)))


def test_weights_of_another_shape_are_named(folder):
    other_width(folder)
    with pytest.raises(
        UserError, match=r"weight is \[\d.*in the files and \[\d.*by config"
    ) as caught:
        load_model(ModelConfig(name=str(folder)))
    assert "hub id" not in str(caught.value)


def test_a_models_own_code_is_not_run_unasked(folder):
    shape = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.Shape", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps(shape | {"model_type": "own", "auto_map": own}))
    (folder / "own.py").write_text("raise SystemExit('it was run')\n")
    with pytest.raises(
        UserError, match=r"read it, then allow it with model\.trust_remote_code=true"
    ):
        load_model(ModelConfig(name=str(folder)))


def test_a_missing_template_is_seen_before_loading(qwen_dir):
    with pytest.raises(UserError, match=r"model\.chat_template=/nope"):
        check(ModelConfig(name=str(qwen_dir), chat_template="/nope"))


def test_hub_names_and_tiny_pass():
    check(ModelConfig(name="owner/model"))
    check(ModelConfig())
