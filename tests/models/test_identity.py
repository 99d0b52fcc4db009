"""Weights are told apart by what they hold, not by where they lie."""

from __future__ import annotations

import shutil

import torch

from plot_exp.config.model import LoRAConfig
from plot_exp.models.adapters import POLICY, add_adapter
from plot_exp.models.identity import SAMPLED_BYTES, model_identity, weights_fingerprint

from scoring_models import tiny_model


def test_a_hub_name_with_its_revision():
    assert model_identity("owner/model", None) == "owner/model@main"
    assert model_identity("owner/model", "abc") == "owner/model@abc"


def test_a_copy_is_the_same_and_changed_weights_are_not(qwen_dir, tmp_path):
    copy = shutil.copytree(qwen_dir, tmp_path / "copy")
    assert model_identity(str(copy), None) == model_identity(str(qwen_dir), None)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_identity(str(copy), None) != model_identity(str(qwen_dir), None)


def test_large_files_are_sampled_at_both_ends(tmp_path):
    found = set()
    for place in (0, -1):
        for value in (0, 1):
            content = bytearray(3 * SAMPLED_BYTES)
            content[place] = value
            (tmp_path / "model.safetensors").write_bytes(content)
            found.add(model_identity(str(tmp_path), None))
    assert len(found) == 3  # all zeros is the same twice


def test_files_that_are_no_weights_do_not_count(qwen_dir, tmp_path):
    copy = shutil.copytree(qwen_dir, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert model_identity(str(copy), None) == model_identity(str(qwen_dir), None)


def test_the_fingerprint_sees_every_number_and_the_configuration() -> None:
    def model(**changes: object) -> torch.nn.Module:
        found = tiny_model("llama")
        for key, value in changes.items():
            setattr(found.config, key, value)
        return found

    known = weights_fingerprint(model())
    assert weights_fingerprint(model(_name_or_path="/elsewhere", use_cache=False)) == known
    changed = {weights_fingerprint(model(rms_norm_eps=1e-3)), weights_fingerprint(model().double())}
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        moved = model()
        with torch.no_grad():
            moved.get_parameter(name)[3, 4] += 1e-4
        changed.add(weights_fingerprint(moved))
    assert len(changed) == 4
    assert known not in changed


def test_the_fingerprint_of_a_start_does_not_know_the_adapter_that_is_trained() -> None:
    model = tiny_model("llama")
    known = weights_fingerprint(model)
    add_adapter(model, LoRAConfig(rank=2), seed=0)
    assert weights_fingerprint(model, leave_out=POLICY) == known
    assert weights_fingerprint(model) != known
