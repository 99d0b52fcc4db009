"""A run that is killed and resumed ends with the weights, bit for bit, of one that was not."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ARGUMENTS = [
    "experiment=quick",
    "logger=none",
    "trainer.max_steps=12",
    "trainer.checkpoint_every=3",
    "trainer.validate_every=4",
    "trainer.dropout=0.1",
    "trainer.progress=false",
    "eval.generations=2",
]


def start(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "plot_exp", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, arguments: list[str]) -> str:
    process = start(folder, arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def kill_when(folder: Path, arguments: list[str], ready: Callable[[], bool]) -> None:
    """Kills the run, without a chance to tidy up, as soon as `ready` holds."""
    process = start(folder, arguments)
    deadline = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def logged_steps(run: Path) -> list[int]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module", params=["exact", "carried"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, and the base model that all share."""
    folder = tmp_path_factory.mktemp(f"resume-{request.param}")
    coupling = f"trainer.coupling={request.param}"
    finish(folder, [*ARGUMENTS, coupling, "hydra.run.dir=whole"])
    return folder / "whole"


def coupling_of(whole: Path) -> str:
    return f"trainer.coupling={'carried' if 'carried' in str(whole) else 'exact'}"


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(whole: Path) -> None:
    folder, run = whole.parent, whole.parent / "killed"
    arguments = [*ARGUMENTS, coupling_of(whole), "hydra.run.dir=killed"]
    kill_when(folder, arguments, lambda: (run / "checkpoints" / "step-6.ckpt").exists())
    assert not (run / "metrics.json").exists()

    finish(folder, ["resume=killed"])

    assert_same_weights(whole, run)
    assert logged_steps(run) == logged_steps(whole) == list(range(1, 13))
    left = json.loads((whole / "metrics.json").read_text())
    right = json.loads((run / "metrics.json").read_text())
    timed = ("train/seconds", "train/pairs_per_second", "train/peak_memory_gb")
    assert {key: value for key, value in left.items() if key not in timed} == {
        key: value for key, value in right.items() if key not in timed
    }


@pytest.mark.slow
def test_a_run_killed_twice_and_before_its_first_checkpoint_too(whole: Path) -> None:
    folder, run = whole.parent, whole.parent / "twice"
    arguments = [*ARGUMENTS, coupling_of(whole), "hydra.run.dir=twice"]
    kill_when(folder, arguments, lambda: (run / "config.yaml").exists())
    kill_when(folder, ["resume=twice"], lambda: (run / "checkpoints" / "step-9.ckpt").exists())

    finish(folder, ["resume=twice"])

    assert_same_weights(whole, run)


@pytest.mark.slow
def test_a_run_killed_while_its_base_is_trained(whole: Path) -> None:
    folder, run = whole.parent, whole.parent / "early"
    arguments = [*ARGUMENTS, coupling_of(whole), "cache_dir=early-cache", "hydra.run.dir=early"]
    kill_when(folder, arguments, lambda: (run / "config.yaml").exists())
    assert not list((folder / "early-cache").glob("tiny/*/model.safetensors"))

    finish(folder, ["resume=early"])

    assert_same_weights(whole, run)


@pytest.mark.slow
def test_bad_input_that_shows_late_leaves_nothing(tmp_path: Path) -> None:
    for wrong, message in (
        ("dataset.max_length=8", "max_length"),
        ("trainer.accelerator=gpu", "no GPU"),
    ):
        if "gpu" in wrong and torch.cuda.is_available():
            continue
        process = start(tmp_path, [*ARGUMENTS, wrong, "hydra.run.dir=run"])
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 2
        assert message in output
        assert "answering" not in output
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_torn_checkpoint_is_passed_over(whole: Path) -> None:
    folder, run = whole.parent, whole.parent / "torn"
    arguments = [*ARGUMENTS, coupling_of(whole), "hydra.run.dir=torn"]
    kill_when(folder, arguments, lambda: (run / "checkpoints" / "step-6.ckpt").exists())
    (run / "checkpoints" / "step-11.ckpt").write_bytes(b"PK\x03\x04 cut off")

    finish(folder, ["resume=torn"])

    assert_same_weights(whole, run)


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(whole: Path) -> None:
    before = weights(whole)
    metrics = (whole / "metrics.json").read_text()

    output = finish(whole.parent, [f"resume={whole}"])

    assert "is finished" in output
    assert (whole / "metrics.json").read_text() == metrics
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in before.items())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole: Path) -> None:
    folder = whole.parent
    common = [*ARGUMENTS, coupling_of(whole)]
    finish(folder, [*common, "hydra.run.dir=again"])
    finish(folder, [*common, "seed=1", "hydra.run.dir=other"])

    assert_same_weights(whole, folder / "again")
    name, tensor = next(iter(weights(whole).items()))
    assert not torch.equal(tensor, weights(folder / "other")[name])
