"""`environment.json` says what a run ran on, and nothing that should stay private."""

from __future__ import annotations

import json
import os
import shlex
from importlib import metadata
from pathlib import Path

import pytest

from plot_exp import environment


def test_versions_hardware_and_seeds(tmp_path: Path) -> None:
    environment.write(tmp_path, {"run": 3, "split": 0})
    record = json.loads((tmp_path / "environment.json").read_text())
    assert record["seeds"] == {"run": 3, "split": 0}
    assert record["packages"]["torch"] == metadata.version("torch")
    assert record["hardware"]["cores"] == os.cpu_count()
    assert record["hardware"]["memory_gb"] > 0


def test_command_survives_the_shell() -> None:
    arguments = ["dataset.path=/my data/it's.jsonl", "loss=dpo+plot", "+x=$(rm)"]
    assert shlex.split(environment.command(arguments)) == ["python", "-m", "plot_exp", *arguments]


def test_a_resumed_run_keeps_the_first_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["plot_exp", "loss=dpo"])
    environment.write(tmp_path, {"run": 0})
    monkeypatch.setattr("sys.argv", ["plot_exp", "resume=there"])
    environment.write(tmp_path, {"run": 0})
    record = json.loads((tmp_path / "environment.json").read_text())
    assert record["command"] == "python -m plot_exp loss=dpo"
    assert [again["command"] for again in record["resumed"]] == ["python -m plot_exp resume=there"]


def test_a_torn_record_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"command": "py')
    environment.write(tmp_path, {"run": 0})
    assert json.loads((tmp_path / "environment.json").read_text())["seeds"] == {"run": 0}


def test_no_variable_of_the_environment_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key-of-the-reader")
    monkeypatch.setenv("HF_TOKEN", "another-secret")
    environment.write(tmp_path, {"run": 0})
    text = (tmp_path / "environment.json").read_text()
    assert "secret" not in text


def test_commit_is_only_that_of_a_tree_that_holds_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = tmp_path / "site-packages" / "plot_exp" / "__init__.py"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("")
    environment._git(tmp_path, "init", "--quiet")
    monkeypatch.setattr(environment.plot_exp, "__file__", str(stranger))
    assert environment.commit() is None
