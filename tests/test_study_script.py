"""`experiments/study.py` keeps a whole study beside its question, and never less than that."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


def loaded(path: Path) -> SimpleNamespace:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses look for their names
    spec.loader.exec_module(module)
    return module  # type: ignore[return-value]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`experiments/study.py`, its results in `kept/`; the sweep that it starts ends with `code`."""
    script = loaded(ROOT / "experiments" / "study.py")
    monkeypatch.setattr(script, "HERE", tmp_path / "kept")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()

    def run(*arguments: str, code: int = 0) -> int:
        ended = SimpleNamespace(returncode=code)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
        monkeypatch.setattr(sys, "argv", ["study.py", *arguments])
        return script.main()

    return run


def finish(folder: Path, seeds: int) -> None:
    make = loaded(ROOT / "tests" / "report" / "finished_run.py").make
    for seed in range(len(list(folder.glob("*"))), seeds):
        make(folder / f"seed={seed}", seed)


def test_a_result_is_written_of_a_whole_study_and_of_one_command_alone(
    study: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["main", "loss=dpo+plot", "seed=0,1"]
    result = tmp_path / "kept/main/result.md"
    finish(tmp_path / "outputs/sweeps/main", 1)
    assert study(*one, "--no-run") == 2
    assert "1 of the 4 points" in capsys.readouterr().err
    assert not result.exists()
    finish(tmp_path / "outputs/sweeps/main", 4)
    assert study(*one, "cache_dir=elsewhere", code=1) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not result.exists()
    assert study(*one, "cache_dir=elsewhere", "hydra/launcher=basic") == 0
    command = "python -m plot_exp -m sweep=main size=demo loss=dpo+plot seed=0,1"
    assert f"from the runs of `{command}`" in result.read_text()

    before = result.read_text()
    assert study("main", "loss=dpo+plot", "seed=0", "--unfinished") == 2
    assert command in capsys.readouterr().err
    assert result.read_text() == before
    other = tmp_path / "trial"
    assert study("main", "loss=dpo+plot", "seed=0", "--unfinished", "--into", str(other)) == 0
    assert (other / "result.md").is_file()
    assert result.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["alpha"], "outputs/sweeps/alpha"),
        (["alpha", "name=mine", "output_dir=there"], "there/sweeps/mine"),
        (["alpha", "--size", "small", "--output-dir", "there"], "there/sweeps/alpha-small"),
        (["real"], "outputs/sweeps/real-hour"),
    ],
)
def test_without_runs_one_sentence_names_the_folder_that_the_sweep_takes(
    study: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    folder: str,
) -> None:
    assert study(*arguments, "--no-run") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{folder}:" in said[0]


def test_a_mistyped_study_is_one_sentence(
    study: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("anchord") == 2
    assert "did you mean 'anchored'?" in capsys.readouterr().err
