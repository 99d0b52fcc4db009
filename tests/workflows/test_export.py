"""The exported folder is the policy, whole, and transformers loads it."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import RunError
from plot_exp.models.policy import Policy
from plot_exp.workflows.export import export_model


@pytest.fixture
def start(saved_model):
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(saved_model))
    policy = Policy(AutoModelForCausalLM.from_pretrained(saved_model))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01)
    return policy, tokeniser


def test_the_folder_gives_the_same_logits_ids_and_text(start, tmp_path):
    policy, tokeniser = start
    export_model(policy, tokeniser, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", use_safetensors=True)
    again = ChatTokeniser(AutoTokenizer.from_pretrained(tmp_path / "model"))
    prompt = (Message("user", "hello there"),)
    ids = again.prompt_ids(prompt)
    assert ids == tokeniser.prompt_ids(prompt)
    assert again.response_ids(["a</s>b<|end|>"]) == tokeniser.response_ids(["a</s>b<|end|>"])
    tensor = torch.tensor([ids])
    assert torch.equal(loaded(input_ids=tensor).logits, policy.model(input_ids=tensor).logits)
    one = loaded.generate(tensor, max_new_tokens=5, do_sample=False)
    assert torch.equal(one, policy.model.generate(tensor, max_new_tokens=5, do_sample=False))


def test_no_pickle_is_written(start, tmp_path):
    export_model(*start, tmp_path / "model")
    suffixes = {file.suffix for file in (tmp_path / "model").iterdir()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pt", ".pkl"}


def test_an_older_export_is_replaced_whole(start, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.txt").write_text("old")
    export_model(*start, tmp_path / "model")
    assert not (tmp_path / "model" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_what_was_there(start, tmp_path, monkeypatch):
    policy, tokeniser = start
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.txt").write_text("old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokeniser.tokenizer, "save_pretrained", fail)
    with pytest.raises(RunError, match=r"could not be written.*No space left"):
        export_model(policy, tokeniser, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "old.txt").read_text() == "old"


@pytest.mark.slow
def test_task_export_repeats_the_runs_model(quick_run, run_cli, tmp_path):
    run = shutil.copytree(quick_run, tmp_path / "run")
    expected = load_file(run / "model" / "model.safetensors")
    shutil.rmtree(run / "model")
    done = run_cli(
        [
            "task=export",
            "run=run",
            "export.path=run/model",
            f"cache_dir={quick_run.parent}/outputs/cache",
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = load_file(run / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_task_export_without_a_checkpoint_says_so(run_cli, tmp_path, quick_run):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(quick_run / "config.yaml", run)
    done = run_cli(["task=export", "run=run"], tmp_path)
    assert done.returncode == 2
    assert "no checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
