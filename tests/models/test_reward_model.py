"""Reward models load from their published layouts and give one number a dialogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXModel

from plot_exp.errors import UserError
from plot_exp.models.reward_model import GPTNeoXRewardModel, load_reward_model

from reward_models import save_oasst, save_qwen

IDS = torch.tensor([[5, 9, 30, 7, 0], [8, 300, 11, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@torch.no_grad()
def backbone(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """Hidden states of one row without padding, by transformers' own GPT-NeoX."""
    weights = load_file(folder / "model.safetensors")
    model = GPTNeoXModel(load_reward_model(str(folder))[0].config).eval()
    prefix = "gpt_neox."
    model.load_state_dict(
        {key.removeprefix(prefix): value for key, value in weights.items() if prefix in key}
    )
    return model(ids[None]).last_hidden_state[0]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_the_published_layout_pools_what_is_not_padding(tmp_path: Path, pooling: str) -> None:
    save_oasst(tmp_path, pooling)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["pooling"]) == ("gpt_neox_reward_model", pooling)
    model, tokenizer = load_reward_model(str(tmp_path))
    assert isinstance(model, GPTNeoXRewardModel)
    weights = load_file(tmp_path / "model.safetensors")
    with torch.no_grad():
        found = model(input_ids=IDS, attention_mask=MASK).logits
    assert found.shape == (2, 1)
    for row, length in enumerate((5, 3)):
        hidden = backbone(tmp_path, IDS[row, :length])
        pooled = hidden[-1] if pooling == "last" else hidden.mean(0)
        expected = pooled @ weights["out_proj.weight"][0] + weights["out_proj.bias"][0]
        assert float(found[row]) == pytest.approx(float(expected), rel=1e-4)
    assert tokenizer.pad_token == "<|padding|>"


def test_the_published_configuration_names_its_rotary_part_the_old_way(tmp_path: Path) -> None:
    """As Pythia's config.json does, and with buffers that older checkpoints hold."""
    made = save_oasst(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"], config["pooling"]
    config |= {"rotary_pct": 0.25, "rotary_emb_base": 10000, "torch_dtype": "float16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_reward_model(str(tmp_path), dtype="float32")
    with torch.no_grad():
        found = model(input_ids=IDS, attention_mask=MASK).logits
        expected = made(input_ids=IDS, attention_mask=MASK).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_weights_in_pytorch_bin_are_read(tmp_path: Path) -> None:
    made = save_oasst(tmp_path)
    torch.save(made.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    model, _ = load_reward_model(str(tmp_path))
    with torch.no_grad():
        assert torch.equal(model(IDS, MASK).logits, made(IDS, MASK).logits)


def test_any_classifier_with_one_output_is_a_reward_model(tmp_path: Path) -> None:
    made = save_qwen(tmp_path)
    model, tokenizer = load_reward_model(str(tmp_path))
    # Its end token stays a token of the response: it is not taken for padding.
    assert model.config.pad_token_id not in (None, tokenizer.eos_token_id)
    end = torch.tensor([[5, 9, tokenizer.eos_token_id]])
    with torch.no_grad():
        hidden = made.model(end).last_hidden_state[0, -1]
        expected = made.score(hidden)
        padded = torch.cat([end, torch.full((1, 2), model.config.pad_token_id)], dim=1)
        mask = torch.tensor([[1, 1, 1, 0, 0]])
        found = model(input_ids=padded, attention_mask=mask).logits[0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_is_no_reward_model_is_named(tmp_path: Path, qwen_dir: Path) -> None:
    save_qwen(tmp_path / "two", labels=2)
    with pytest.raises(UserError, match="it has 2 outputs, and a reward is one number"):
        load_reward_model(str(tmp_path / "two"))
    save_oasst(tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    del weights["out_proj.bias"]
    save_file(weights, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights are missing, such as out_proj\.bias"):
        load_reward_model(str(tmp_path / "cut"))
    with pytest.raises(UserError, match="could not be loaded"):
        load_reward_model(str(tmp_path / "nowhere"))
    # A causal language model has no reward head.
    with pytest.raises(UserError, match="could not be loaded"):
        load_reward_model(str(qwen_dir))
