"""Sweeps that are left alone: killed and started again, with a point that fails, on launchers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from plot_exp.__main__ import main
from plot_exp.config.schema import Config
from plot_exp.tracking.wandb_log import GROUP, WandbLog

QUICK = ["experiment=quick", "trainer.max_steps=2", "eval=none", "trainer.progress=false"]


def started(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    source = str(Path(__file__).resolve().parents[1] / "src")
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "plot_exp", "-m", *QUICK, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def summary_of(output: str) -> list[str]:
    """The lines below `Sweep in` that say what became of each point."""
    lines = output.partition("\nSweep in ")[2].splitlines()[1:]
    return [line for line in lines if line.split()[0] in ("done", "skipped", "failed")]


@pytest.mark.slow
def test_a_killed_sweep_runs_what_is_missing_and_names_what_fails(tmp_path: Path) -> None:
    pairs = [{"prompt": f"p{i}", "chosen": "yes, gladly", "rejected": "no"} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    same = {"prompt": "p", "chosen": "yes", "rejected": "yes"}
    (tmp_path / "same.jsonl").write_text(json.dumps(same) + "\n")
    command = ["dataset=jsonl", "dataset.path=pairs.jsonl,same.jsonl", "seed=0,1", "name=s"]
    folder = tmp_path / "outputs/sweeps/s"
    process = started(*command, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while len(list(folder.glob("*/environment.json"))) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (first,) = folder.glob("*/metrics.json")
    before = first.read_bytes(), first.stat().st_mtime_ns

    process = started(*command, cwd=tmp_path)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 2, output
    lines = summary_of(output)
    assert [line.split()[0] for line in lines] == ["skipped", "done", "failed", "failed"]
    assert "dataset.path=same.jsonl" in lines[2]
    assert "same.jsonl" in lines[2].partition(": ")[2]
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    assert len(list(folder.glob("*/metrics.json"))) == 2
    assert "dataset=jsonl" not in lines[0]  # said once, of every point
    assert "every point with experiment=quick" in output
    assert "1 skipped, 1 done, 2 failed" in output
    assert output.rstrip().endswith(f"task=report runs={folder}")


@pytest.mark.slow
def test_submitit_runs_points_as_jobs_of_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    process = started(*launcher, "seed=0,1", "name=s", cwd=tmp_path)
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    assert [line.split()[0] for line in summary_of(output)] == ["done", "done"]
    assert len(list((tmp_path / "outputs/sweeps/s").glob("*/metrics.json"))) == 2


def fake_training(monkeypatch: pytest.MonkeyPatch, train: Callable[..., dict[str, float]]) -> None:
    workflow = types.ModuleType("plot_exp.workflows.train")
    workflow.run = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plot_exp.workflows.train", workflow)


def test_two_sweeps_at_once_never_work_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    begun: list[int] = []

    def train(config: Config, run_dir: Path) -> dict[str, float]:
        begun.append(config.seed)
        if begun == [0]:
            assert main(["-m", "seed=0,1", "name=s", "logger=csv"]) == 2
        return {}

    fake_training(monkeypatch, train)
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "seed=0", "name=s", "logger=csv"]) == 0
    assert begun == [0, 1]
    inner = capfd.readouterr().out.partition("\nSweep in ")[2]
    folder = tmp_path / "outputs/sweeps/s/seed=0"
    assert f"failed  seed=0: {folder}: another process is at work there" in inner
    assert "done    seed=1" in inner
    # The lock goes with the process that held it.
    assert main(["-m", "seed=1", "name=s", "logger=csv"]) == 0


def test_a_search_with_a_seed_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    tried: list[float] = []

    def train(config: Config, run_dir: Path) -> dict[str, float]:
        alpha = config.plain()["loss"]["plot"]["alpha"]
        tried.append(alpha)
        metrics = {"val/reward_accuracy": 1 / alpha}
        (run_dir / "config.yaml").write_text(yaml.safe_dump(config.plain()))
        (run_dir / "metrics.json").write_text(json.dumps(metrics))
        return metrics

    fake_training(monkeypatch, train)
    monkeypatch.chdir(tmp_path)
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_jobs=1", "name=s", "logger=csv"]
    search += ["hydra.sweeper.sampler.seed=0", "hydra.sweeper.direction=maximize"]
    search += ["loss.plot.alpha=tag(log, interval(0.01, 10))"]
    assert main([*search, "hydra.sweeper.n_trials=2"]) == 0
    first = list(tried)
    assert main([*search, "hydra.sweeper.n_trials=4"]) == 0
    assert len(tried) == len(set(tried)) == 4
    assert tried[:2] == first
    assert f"best_value: {1 / min(tried)}" in capfd.readouterr().out


def test_the_points_of_a_sweep_are_one_group_in_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []

    def init(**settings: Any) -> Any:
        begun.append(settings)
        return SimpleNamespace(define_metric=lambda *_, **__: None, finish=lambda **_: None)

    def train(config: Config, run_dir: Path) -> dict[str, float]:
        WandbLog(run_dir, config).close(0)
        return {}

    fake = SimpleNamespace(init=init, run=None, Settings=SimpleNamespace, teardown=lambda: None)
    fake_training(monkeypatch, train)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv(GROUP, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "seed=0,1", "name=s", "logger.mode=offline"]) == 0
    assert main(["name=alone", "logger.mode=offline"]) == 0
    assert [(run["group"], run["name"]) for run in begun] == [
        ("s", "seed=0"),
        ("s", "seed=1"),
        (None, "alone"),
    ]
    monkeypatch.setenv(GROUP, "mine")
    assert main(["-m", "seed=0", "name=s", "logger.mode=offline"]) == 0
    assert begun[-1]["group"] == "mine"
