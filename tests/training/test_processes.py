"""Two processes give the loss and the gradient of one: 1×6 ≡ 2 processes with any microbatches.

So they do where each of them has a part of every weight.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from coupling_runs import Run

WORKER = Path(__file__).parents[1] / "process_worker.py"

# The microbatches of rank 0, then those of rank 1.
JOBS: list[dict[str, Any]] = [
    {"loss": loss, "sizes": sizes, "mode": "exact", "dropout": 0.0}
    for loss in (
        "dpo",
        "sft",
        "aot",
        "pro",
        "dpo+plot",
        "aot+plot",
        "deft+kl",
        "kto",
        "tdpo+otpo+emo",
    )
    for sizes in ([[3], [3]], [[2, 2], [2]])
]
JOBS += [
    {"loss": "dpo+plot", "sizes": [[2], [2]], "mode": "carried", "dropout": 0.0},
    {"loss": "dpo+plot", "sizes": [[1, 1], [1, 1]], "mode": "carried", "dropout": 0.0},
    {"loss": "aot+plot", "sizes": [[2], [2]], "mode": "microbatch", "dropout": 0.0},
    {"loss": "dpo+plot", "sizes": [[2, 1], [2, 1]], "mode": "exact", "dropout": 0.3},
    {"loss": "aot+plot", "sizes": [[3], [1, 2]], "mode": "exact", "dropout": 0.3},
    # The last batch of a run may hold fewer examples than there are processes.
    {"loss": "dpo", "sizes": [[1], []], "mode": "exact", "dropout": 0.0},
    {"loss": "orpo", "sizes": [[2, 2], [2]], "mode": "exact", "dropout": 0.0},
    {"loss": "aot+plot", "sizes": [[2], []], "mode": "exact", "dropout": 0.0},
    {"loss": "dpo+plot", "sizes": [[2], []], "mode": "microbatch", "dropout": 0.0},
    {"loss": "dpo+plot", "sizes": [[2], []], "mode": "carried", "dropout": 0.0},
]
# Weights in parts (FSDP2).
PARTS = [
    {"loss": loss, "sizes": sizes, "mode": "exact", "dropout": 0.0}
    for loss in ("dpo", "aot", "pro", "dpo+plot")
    for sizes in ([[3], [3]], [[2, 2], [2]], [[2], []])
]
PARTS.append({"loss": "dpo+plot", "sizes": [[2, 1], [2, 1]], "mode": "exact", "dropout": 0.3})
JOBS = [job | {"parts": False} for job in JOBS] + [job | {"parts": True} for job in PARTS]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What each rank found for every job."""
    folder = tmp_path_factory.mktemp("processes")
    port = str(free_port())
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": "2",
            "RANK": str(rank),
            "PYTHONPATH": os.pathsep.join(
                [
                    str(WORKER.parent),
                    str(WORKER.parents[1] / "src"),
                    os.environ.get("PYTHONPATH", ""),
                ]
            ),
        }
        command = [sys.executable, str(WORKER), str(folder), json.dumps(JOBS)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(JOBS)))
def test_processes_share_one_batch(shared: list[list[dict[str, Any]]], place: int) -> None:
    job = JOBS[place]
    run = Run(job["loss"], dropout=job["dropout"])
    sizes = [size for rank in job["sizes"] for size in rank]
    # With exact coupling one undivided batch must give the same; the others are defined by parts.
    sizes = [sum(sizes)] if job["mode"] == "exact" else sizes
    alone, gradients = run.step(sizes, mode=job["mode"])
    if job["mode"] == "carried":
        alone, gradients = run.step(sizes, mode="carried", carried=alone.parts)

    for found in (shared[0][place], shared[1][place]):
        for name, loss in found["losses"].items():
            torch.testing.assert_close(loss, alone.terms[name].loss, rtol=1e-9, atol=1e-12)
        # Norms of the architecture run in fp32, so rows of another batch size may round apart.
        torch.testing.assert_close(found["gradients"], gradients, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found["sums"], alone.whole().policy.sums())
