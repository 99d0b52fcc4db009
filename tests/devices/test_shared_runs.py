"""The real command in several processes: what one process gives, whatever happens on the way."""

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
from transformers import AutoModelForCausalLM

# 41 examples in batches of 8: the last one holds one, so that microbatches and processes come to
# different numbers of examples, and one process to none.
ARGUMENTS = [
    "experiment=quick",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.progress=false",
    "trainer.max_steps=null",
    "trainer.batch_size=8",
    "trainer.microbatch_size=2",
    "trainer.checkpoint_every=2",
    "trainer.validate_every=3",
    "trainer.dropout=0.1",
    "dataset.limit=41",
    "eval.generations=3",
    "eval.batch_size=2",
]
TIMED = ("second", "memory", "heartbeat")


def start(
    folder: Path, arguments: list[str], launcher: list[str] | None = None
) -> subprocess.Popen:
    source = Path(__file__).parents[2] / "src"
    paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [*(launcher or [sys.executable]), "-m", "plot_exp", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, arguments: list[str], launcher: list[str] | None = None) -> str:
    process = start(folder, arguments, launcher)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def shared(strategy: str, devices: int) -> list[str]:
    return [*ARGUMENTS, f"trainer={strategy}", f"trainer.devices={devices}"]


def wait_for(ready: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(process: subprocess.Popen) -> list[int]:
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(one) for one in task.read_text().split()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    """The same trajectory, weights and measurements, but for the rounding of sums."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(right[name], tensor, rtol=0, atol=1e-6)
    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in (one, other))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if not any(word in key for word in TIMED):
            assert theirs[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key
    rows = [logged(run) for run in (one, other)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for ours, theirs in zip(*rows, strict=True):
        for key, value in ours.items():
            if value and not any(word in key for word in TIMED):
                assert float(theirs[key]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), key
    for name in ("samples.jsonl", "generations.jsonl"):
        assert (one / name).read_text() == (other / name).read_text()


def logged(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, and the base model that all share."""
    folder = tmp_path_factory.mktemp("shared-runs")
    finish(folder, [*ARGUMENTS, "hydra.run.dir=alone"])
    return folder / "alone"


@pytest.mark.slow
def test_ddp_starts_with_an_empty_cache_and_gives_what_one_process_gives(alone: Path) -> None:
    arguments = [*shared("ddp", 2), "cache_dir=own-cache", "hydra.run.dir=ddp"]
    output = finish(alone.parent, arguments)

    assert_same_run(alone, alone.parent / "ddp")
    # One process fills the caches, and one speaks.
    assert output.count("run folder:") == output.count("Before and after") == 1
    assert len(list((alone.parent / "own-cache" / "tiny").iterdir())) == 1


@pytest.mark.slow
def test_parts_are_gone_on_with_by_four_processes_and_by_one(alone: Path) -> None:
    folder, run = alone.parent, alone.parent / "fsdp"
    process = start(folder, [*shared("fsdp", 2), "hydra.run.dir=fsdp"])
    wait_for((run / "checkpoints" / "step-2.ckpt").is_dir, process)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert "TCPStore" not in output  # what torch's C++ says of a connection that is lost
    process = start(folder, ["resume=fsdp", "trainer.devices=4"])
    wait_for((run / "checkpoints" / "step-4.ckpt").is_dir, process)
    os.kill(children(process)[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "process 3 of 4 was ended by SIGKILL" in output
    assert f"resume={run}" in output

    finish(folder, ["resume=fsdp", "trainer.devices=1"])

    assert_same_run(alone, run)
    finish(folder, ["task=export", "run=fsdp", "logger=none"])
    exported = AutoModelForCausalLM.from_pretrained(run / "export")
    for name, tensor in AutoModelForCausalLM.from_pretrained(run / "model").state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor), name


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_an_adapter(alone: Path) -> None:
    folder = alone.parent
    adapter = ["model.lora.rank=4", "reference_form=adapter_off", "loss=aot", "eval.generations=0"]
    finish(folder, [*ARGUMENTS, *adapter, "hydra.run.dir=lora"])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launcher += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]

    output = finish(folder, [*shared("fsdp", 1), *adapter, "hydra.run.dir=lora-fsdp"], launcher)

    assert output.count("run folder:") == 1
    left, right = weights(folder / "lora"), weights(folder / "lora-fsdp")
    for name, tensor in left.items():
        torch.testing.assert_close(right[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_signal_that_only_one_process_hears_before_training_ends_all_by_it(alone: Path) -> None:
    run = alone.parent / "signalled"
    process = start(alone.parent, [*shared("ddp", 2), "hydra.run.dir=signalled"])
    wait_for((run / "data.json").is_file, process)
    os.kill(children(process)[0], signal.SIGTERM)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 143, output
    said = [line for line in output.splitlines() if line.startswith("error:")]
    assert said == [
        f"error: process 1 of 2 was ended by SIGTERM; go on with: python -m plot_exp resume={run}"
    ]


@pytest.mark.slow
def test_bad_input_that_one_process_meets_is_said_once(tmp_path: Path) -> None:
    process = start(tmp_path, [*shared("ddp", 2), "dataset.max_length=8", "hydra.run.dir=run"])
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert output.count("error:") == 1
    assert "max_length" in output
    assert not (tmp_path / "run").exists()
