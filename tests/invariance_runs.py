"""Runs of the real command with the same mathematics in different forms: `invariance_runs.py JOBS`.

Started as a script it is one of several processes that share every optimizer's batch; JOBS is a
JSON list of argument lists, in which `{rank}` stands for the process.
"""

from __future__ import annotations

import csv
import functools
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from plot_exp.__main__ import main
from plot_exp.report import curves
from plot_exp.workflows import train

STEPS = 50
WORDS = (
    "apples",
    "basket",
    "answer",
    "seven",
    "country",
    "morning",
    "idea",
    "map",
    "table",
    "good",
)
LOSSES = ("dpo", "aot", "pro", "dpo+plot")
BASE = (
    "dataset=jsonl",
    "dataset.max_length=48",
    "dataset.validation_fraction=0.1",
    "eval=none",
    "logger=none",
    "reference_form=copy",
    "optimizer.lr=3e-4",
    f"trainer.max_steps={STEPS}",
    "trainer.batch_size=16",
    "trainer.layout=padded",
    "trainer.log_every=1",
    "trainer.checkpoint_every=1000",
    "trainer.log_term_gradients=false",
    "trainer.progress=false",
)


def write_data(path: Path, count: int = 90) -> None:
    """Rankings of two and three responses of uneven lengths, some prompts long enough to be cut."""
    draw = random.Random(5)

    def text(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    rows = [
        {"prompt": f"{text(1, 24)} {row}?", "responses": [text(1, 9) for _ in range(2 + row % 2)]}
        for row in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(model: Path, folder: Path, loss: str, name: str, changes: Sequence[str]) -> list[str]:
    """The arguments of one run, which goes to FOLDER/NAME."""
    changed = {change.split("=")[0] for change in changes}
    kept = [argument for argument in BASE if argument.split("=")[0] not in changed]
    own = [
        "model=hf",
        f"model.name={model}",
        f"loss={loss}",
        f"dataset.path={folder / 'data.jsonl'}",
        f"cache_dir={folder / 'cache'}",
        f"hydra.run.dir={folder / name}",
    ]
    return [*own, *kept, *changes]


def run_command(arguments: Sequence[str]) -> int:
    """The command's exit code; its curves are not drawn, which would take most of the time."""
    with patch.object(curves, "draw", lambda *_: []):
        return main(arguments)


def losses(folder: Path) -> list[float]:
    """The loss of every step of a finished run."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = [row["train/loss"] for row in csv.DictReader(file)]
    return [float(loss) for loss in found if loss]


def run_together(jobs: Sequence[Sequence[str]]) -> None:
    """The jobs as one of several processes: each step's examples are dealt out among them."""
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    loader = functools.partial(train.StepLoader, rank=rank, processes=processes)
    train.StepLoader = loader  # type: ignore[assignment, misc]
    for arguments in jobs:
        code = run_command([argument.replace("{rank}", str(rank)) for argument in arguments])
        if code:
            sys.exit(code)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_together(json.loads(sys.argv[1]))
