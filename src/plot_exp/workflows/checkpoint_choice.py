"""Which of a run's checkpoints is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from plot_exp.errors import UserError
from plot_exp.workflows.engine import CHECKPOINT_NAME, last_checkpoint
from plot_exp.workflows.strategies import FACTS, in_parts, weights_of


def choose_checkpoint(run_dir: Path, wanted: Literal["last", "best"] | int) -> Path:
    """The checkpoint of a run, finished or not.

    Raises:
        UserError: there is none, or not the wanted one.
    """
    newest = last_checkpoint(run_dir)
    if newest is None:
        raise UserError(f"run={run_dir}: there is no checkpoint that can be read; train it first")
    if wanted == "last":
        return newest
    steps = _steps(run_dir)
    if wanted == "best":
        step = _best_step(newest)
        if step not in steps:
            raise UserError(
                f"run={run_dir}: the run kept no best checkpoint, which trainer.keep.best=METRIC "
                f"asks for; there is one after step {_listed(steps)}"
            )
        return steps[step]
    if wanted not in steps:
        raise UserError(
            f"export.checkpoint={wanted}: {run_dir} has no checkpoint after that step, but after "
            f"{_listed(steps)}"
        )
    return steps[wanted]


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The trained weights of a checkpoint, in one piece.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return weights_of(checkpoint)
    except Exception as error:  # torch raises nearly anything for a torn file
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{checkpoint} cannot be read ({why}); choose another one") from error


def _steps(run_dir: Path) -> dict[int, Path]:
    found = {}
    for path in (run_dir / "checkpoints").glob("*.ckpt"):
        if match := CHECKPOINT_NAME.fullmatch(path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _listed(steps: dict[int, Path]) -> str:
    return ", ".join(map(str, steps))


def _best_step(newest: Path) -> Any:
    """What the newest checkpoint knows to be best; None where the run kept none."""
    path = newest / FACTS if in_parts(newest) else newest
    content = torch.load(path, map_location="meta", weights_only=True)
    callbacks = content.get("callbacks") or {}
    known = [one["best_step"] for one in callbacks.values() if "best_step" in one]
    return known[0] if known else None
