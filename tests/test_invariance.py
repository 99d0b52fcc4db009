"""The same mathematics in another form gives the same run: 50 fp32 steps of the real command."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import invariance_runs
from invariance_runs import LOSSES, STEPS, command, losses, run_command, write_data

# Of losses between about 0.3 and 5: rounding that 50 steps carry on, and its mean over the steps.
ABSOLUTE, MEAN_DRIFT = 2e-5, 2e-6

FORMS = {
    "shared": ["trainer.layout=shared"],
    "packed": ["trainer.layout=packed"],
    "chunked_head": ["trainer.head_chunk=5"],
    "cached_reference": ["reference_form=cached"],
    "checkpointed": ["trainer.activation_checkpointing=true"],
    "eight_microbatches": ["trainer.microbatch_size=2", "trainer.layout=auto"],
    "all_at_once": [
        "trainer.layout=auto",
        "trainer.head_chunk=7",
        "reference_form=cached",
        "trainer.activation_checkpointing=true",
        "trainer.microbatch_size=4",
    ],
}

Runs = Callable[..., list[float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("invariance")
    write_data(path / "data.jsonl")
    return path


@pytest.fixture(scope="module")
def run(folder: Path, qwen_dir: Path) -> Runs:
    """`run(loss, name, changes)`: every step's loss; a run is made once."""

    def make(loss: str, name: str = "base", changes: Sequence[str] = ()) -> list[float]:
        place = f"{loss}-{name}"
        if not (folder / place / "metrics.json").is_file():
            assert run_command(command(qwen_dir, folder, loss, place, changes)) == 0
        return losses(folder / place)

    return make


def assert_same(found: Sequence[float], expected: Sequence[float]) -> None:
    assert len(found) == len(expected) == STEPS
    assert max(expected) - min(expected) > 0.02  # it learns, so that a difference could show
    drift = [one - other for one, other in zip(found, expected, strict=True)]
    assert max(map(abs, drift)) <= ABSOLUTE
    assert abs(statistics.fmean(drift)) <= MEAN_DRIFT


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_form_of_the_computation_changes_no_step(run: Runs, loss: str, form: str) -> None:
    assert_same(run(loss, form, FORMS[form]), run(loss))


@pytest.mark.slow
def test_dropout_falls_on_the_same_tokens_in_every_layout(run: Runs) -> None:
    dropout = "trainer.dropout=0.1"
    expected = run("dpo+plot", "dropout", [dropout])
    packed = ["trainer.layout=packed", "trainer.microbatch_size=4", dropout]
    assert_same(run("dpo+plot", "dropout_packed", packed), expected)
    assert max(abs(a - b) for a, b in zip(expected, run("dpo+plot"), strict=True)) > 500 * ABSOLUTE


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(run: Runs, folder: Path, qwen_dir: Path) -> None:
    changes = ["trainer.layout=auto", "trainer.microbatch_size=4"]
    jobs = [command(qwen_dir, folder, loss, f"{loss}-rank{{rank}}", changes) for loss in LOSSES]
    _start(jobs, processes=2)
    for loss in LOSSES:
        for rank in range(2):
            assert_same(losses(folder / f"{loss}-rank{rank}"), run(loss))


def _start(jobs: Sequence[Sequence[str]], processes: int) -> None:
    """Starts the processes on this machine and waits for them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    script = Path(invariance_runs.__file__)
    paths = [str(script.parent), str(script.parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(script), json.dumps(jobs)],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(processes)
    ]
    try:
        for process in started:
            output, _ = process.communicate(timeout=900)
            assert process.returncode == 0, output.decode()
    finally:
        for process in started:
            process.kill()
