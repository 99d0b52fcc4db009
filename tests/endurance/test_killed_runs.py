"""Whole commands, ended by signals at any moment: what they leave, say and go on to."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forked_runs import QUICK, Command

KEEP = [
    "trainer.max_steps=20",
    "trainer.dropout=0.1",
    "trainer.validate_every=2",
    "trainer.keep.best=val/loss",
    "trainer.keep.mode=min",
    "trainer.export_checkpoint=best",
    "optimizer.ema=0.8",
]
KILLS = 12


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


def assert_same_run(one: Path, other: Path) -> None:
    left, right = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name
    assert checkpoints(one) == checkpoints(other)
    found = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    assert found[0]["train/exported_step"] == found[1]["train/exported_step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, and the base model that all share."""
    folder = tmp_path_factory.mktemp("killed")
    command = Command(folder, [*QUICK, *KEEP, "hydra.run.dir=whole"])
    assert command.wait() == 0, command.output
    return folder / "whole"


@pytest.mark.slow
def test_killed_at_random_moments_many_times(whole: Path) -> None:
    """Each is killed within the time that a whole run takes; the first one that ends is looked at.

    What was the best and the last is the same too, and at most two checkpoints and one in the
    writing lie on the disk at any kill.
    """
    folder, run = whole.parent, whole.parent / "killed"
    draw = random.Random(0)
    arguments = [*QUICK, *KEEP, "hydra.run.dir=killed"]
    kills = 0
    while True:
        begun = (run / "config.yaml").exists()
        command = Command(folder, ["resume=killed"] if begun else arguments)
        # A kill may come between the last file and the process's own end.
        if kills < KILLS and not (run / "metrics.json").exists():
            # From the start of the work on, since what is before leaves nothing.
            command.wait_until(partial(command.said, "run folder"))
            time.sleep(draw.uniform(0.0, 1.2))
            command.send(signal.SIGKILL)
        code = command.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, command.output
        kills += 1
        written = [path for path in (run / "checkpoints").glob("*") if path.suffix == ".ckpt"]
        assert len(written) <= 3
    assert kills >= 3
    assert_same_run(whole, run)


def fake_scontrol(folder: Path, state: str = "RUNNING") -> str:
    """A `scontrol` that notes how it was called; gives the PATH on which it is found first."""
    tool = folder / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {folder / "scontrol.txt"}\n'
        f'[ "$1" = show ] && echo "   JobState={state} Reason=None"\nexit 0\n'
    )
    tool.chmod(0o755)
    return f"{tool.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.slow
def test_a_job_that_is_preempted_is_requeued_and_finds_its_run(whole: Path) -> None:
    """The same command, started again by SLURM, goes on in the folder with the earlier time."""
    folder = whole.parent
    job = {"PATH": fake_scontrol(folder), "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train"}
    job |= {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "node1"}
    arguments = [*QUICK, *KEEP, "name=preempted"]
    runs = folder / "outputs" / "preempted"

    command = Command(folder, arguments, **job)
    command.wait_until(lambda: bool(list(runs.glob("*/checkpoints/step-3.ckpt"))))
    command.send(signal.SIGTERM)
    assert command.wait() == 143, command.output
    (run,) = runs.iterdir()
    assert (folder / "scontrol.txt").read_text() == "show job 77\nrequeue 77\n"
    assert "ended by SIGTERM after step" in command.output
    assert "SLURM job 77 is requeued" in command.output
    assert not list(run.rglob(".*.part"))

    again = Command(folder, arguments, **job, SLURM_RESTART_COUNT="1")
    assert again.wait() == 0, again.output
    assert f"going on with {run}" in again.output
    assert list(runs.iterdir()) == [run]
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_signal_outside_of_training_leaves_nothing_half_written(whole: Path) -> None:
    """In base training, and in the evaluation after training."""
    folder = whole.parent
    arguments = [*QUICK, *KEEP, "cache_dir=other-cache", "hydra.run.dir=early"]
    command = Command(folder, arguments)
    command.wait_until((folder / "early" / "config.yaml").exists)
    command.send(signal.SIGTERM)
    assert command.wait() == 143, command.output
    assert f"go on with: python -m plot_exp resume={folder / 'early'}" in command.output
    assert not list((folder / "other-cache").glob("tiny/.unfinished*"))
    assert not list((folder / "early").rglob("*.part"))

    resumed = Command(folder, ["resume=early"])
    resumed.wait_until((folder / "early" / "checkpoints" / "step-20.ckpt").exists)
    resumed.send(signal.SIGUSR1)
    code = resumed.wait()
    assert code in (0, 138), resumed.output
    if code:
        last = Command(folder, ["resume=early"])
        assert last.wait() == 0, last.output
    assert_same_run(whole, folder / "early")
