"""Presets have the published shapes, and are built at any size without a download."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from plot_exp.config.composition import compose
from plot_exp.config.model import ModelConfig, ShapeConfig
from plot_exp.errors import UserError
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.random_start import random_directory
from plot_exp.models.shape import shape_of

SMALL = [
    "model.weights=random",
    "model.shape.num_hidden_layers=2",
    "model.shape.hidden_size=64",
    "model.shape.intermediate_size=96",
    "model.shape.num_attention_heads=4",
    "model.shape.num_key_value_heads=2",
    "model.shape.vocab_size=5000",
]


def shape(preset: str, *overrides: str):
    return shape_of(compose([f"model={preset}", "model.weights=random", *overrides]).model)


@pytest.mark.parametrize("variant", ["", "_base"])
@pytest.mark.parametrize(
    ("preset", "parameters", "head_dim"),
    [  # as their model cards count them
        ("llama3b", 3_212_749_824, 128),
        ("llama8b", 8_030_261_248, 128),
        ("qwen7b", 7_615_616_512, 128),
    ],
)
def test_a_preset_has_as_many_parameters_as_published(preset, variant, parameters, head_dim):
    config = shape(preset + variant)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    assert model.num_parameters() == parameters
    assert model.model.layers[0].self_attn.head_dim == head_dim
    assert config.dtype == torch.bfloat16
    assert (config.tie_word_embeddings, config.model_type) == (
        preset == "llama3b",
        "qwen2" if preset == "qwen7b" else "llama",
    )


def test_llamas_stretched_positions_are_theirs():
    for preset, factor in (("llama3b", 32.0), ("llama8b", 8.0)):
        plain = shape(preset).to_dict()
        scaling = plain.get("rope_parameters") or plain["rope_scaling"]
        assert scaling["factor"] == factor
        assert scaling["rope_type"] == "llama3"
        assert scaling["original_max_position_embeddings"] == 8192
    assert shape("qwen7b").max_position_embeddings == 32768
    assert shape("qwen7b_base").max_position_embeddings == 131072


@pytest.mark.parametrize("preset", ["llama3b", "llama8b_base", "qwen7b"])
def test_a_preset_is_built_small_without_the_hub(preset, tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("a download")

    monkeypatch.setattr("socket.socket.connect", no_network)
    config = compose([f"model={preset}", *SMALL]).model
    folder = random_directory(config, tmp_path)
    assert random_directory(config, tmp_path) == folder
    made = config.model_copy(update={"name": str(folder), "shape": ShapeConfig()})
    model, tokenizer = load_model(made, seed=3), load_tokenizer(made)
    assert model.config.num_hidden_layers == 2
    assert model.get_output_embeddings().weight.shape == (5000, 64)
    assert len(tokenizer) <= 4096
    assert model.config.eos_token_id == tokenizer.eos_token_id
    text = "What is 6 × 7? — Ask Zoë!"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    same = load_model(made, seed=3).state_dict()
    other = load_model(made, seed=4).state_dict()
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(model.state_dict()[name], same[name])
    assert not torch.equal(same[name], other[name])


def test_a_folders_own_shape_with_some_values_replaced(saved_model):
    own = AutoConfig.from_pretrained(saved_model)
    config = ModelConfig(
        name=str(saved_model),
        weights="random",
        shape=ShapeConfig(num_hidden_layers=3, hidden_size=48),
    )
    model = load_model(config)
    assert len(model.model.layers) == 3
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (48, 48)
    assert model.config.vocab_size == own.vocab_size


def test_pretrained_weights_keep_their_shape(qwen_dir):
    fits = ShapeConfig(num_hidden_layers=2, vocab_size=416, tie_word_embeddings=True)
    load_model(ModelConfig(name=str(qwen_dir), shape=fits))
    with pytest.raises(UserError, match=r"num_hidden_layers=3: the pretrained.*have 2; write"):
        load_model(ModelConfig(name=str(qwen_dir), shape=ShapeConfig(num_hidden_layers=3)))


def test_a_shape_in_part_is_no_shape():
    config = ModelConfig(name="x/y", weights="random", shape=ShapeConfig(architecture="llama"))
    with pytest.raises(UserError, match=r"model\.shape\.vocab_size is missing"):
        shape_of(config)


def test_frozen_weights_are_bfloat16_and_trained_ones_float32():
    assert compose(["model=llama8b"]).model.dtype == "float32"
    assert compose(["model=llama8b", "model.lora.rank=8"]).model.dtype == "bfloat16"
    assert compose(["model=llama8b", "model.lora.rank=8", "model.dtype=float32"]).model.dtype == (
        "float32"
    )


def test_base_models_take_the_plain_template(qwen_dir):
    for preset in ("llama3b", "llama8b", "qwen7b"):
        assert compose([f"model={preset}"]).model.chat_template is None
        assert compose([f"model={preset}_base"]).model.chat_template == "plain"
    tokenizer = load_tokenizer(ModelConfig(name=str(qwen_dir), chat_template="plain"))
    assert tokenizer.chat_template is None
