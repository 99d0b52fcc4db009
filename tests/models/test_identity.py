"""Weights are told apart by what they hold, not by where they lie."""

from __future__ import annotations

import shutil

from plot_exp.models.identity import SAMPLED_BYTES, model_identity


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
