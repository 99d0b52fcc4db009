"""Exports of models that are no tiny ones, from a checkpoint alone, up to the hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from plot_exp.config.composition import compose
from plot_exp.errors import UserError
from plot_exp.models.policy import frozen_names
from plot_exp.progress import silent
from plot_exp.workflows import export
from plot_exp.workflows.models import open_start

from fake_hub import serving_hub

IDS = torch.tensor([[5, 9, 300, 41, 7]])


def run_of(folder: Path, model: Path, *settings: str) -> torch.Tensor:
    """A run that was killed behind its first checkpoint; the logits of the policy in it."""
    config = compose(["model=hf", f"model.name={model}", "loss=dpo", *settings])
    start = open_start(config, [], silent)
    with torch.no_grad():
        for parameter in start.policy.trainable():
            parameter.add_(torch.full_like(parameter, 0.02))
    frozen = frozen_names(start.policy)
    state = {
        f"policy.{name}": value
        for name, value in start.policy.state_dict().items()
        if name not in frozen
    }
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state, "callbacks": {}}, folder / "checkpoints" / "step-3.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    with torch.no_grad():
        return start.policy.model.eval()(input_ids=IDS).logits


def exported(run: Path, *settings: str) -> Path:
    export.run(compose(["task=export", f"run={run}", *settings]), run)
    return run / "export"


@pytest.mark.parametrize("settings", [(), ("model.lora.rank=2",)], ids=["full", "adapter"])
def test_a_killed_runs_policy_is_the_one_of_its_checkpoint(saved_model, tmp_path, settings) -> None:
    run = tmp_path / "run"
    expected = run_of(run, saved_model, *settings)
    folder = exported(run)
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        found = loaded(input_ids=IDS).logits
        start = AutoModelForCausalLM.from_pretrained(saved_model).eval()(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(found, start, rtol=0, atol=1e-3)
    card = (folder / "README.md").read_text()
    assert "has not come to its end" in card
    assert str(saved_model) not in card
    with pytest.raises(UserError, match=r"kept no best checkpoint.*after step 3"):
        exported(run, "export.checkpoint=best", f"export.path={tmp_path}/other")


def test_an_export_is_pushed_and_a_kept_adapter_of_a_local_model_is_not(
    qwen_dir, tmp_path, monkeypatch
) -> None:
    token = "hf_" + "aB3" * 11
    run = tmp_path / "run"
    run_of(run, qwen_dir, "model.lora.rank=2")
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with serving_hub(token) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        with pytest.raises(UserError, match=r"nobody else has; write export\.adapter=merge"):
            exported(run, "export.push_to=ann/policy", "export.adapter=keep")
        assert not (run / "export").exists()
        folder = exported(run, "export.push_to=ann/policy")
        assert hub.repositories == {"ann/policy": True}
        assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert b'from_pretrained("ann/policy"' in hub.files["README.md"]
    assert not any(token.encode() in content for content in hub.files.values())
