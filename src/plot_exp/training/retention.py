"""Which checkpoints stay: the last one and, where a metric is named, the best one."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from plot_exp.errors import RunError

NAME = re.compile(r"step-(\d+)\.ckpt")


class Checkpoints(Checkpoint):
    """Saves `step-N.ckpt` now and then, at a best validation, and after the last step.

    An older one goes once a newer one is whole, so that beside the one being written there are at
    most two. What is best travels in the checkpoints, so that a resumed run knows it too.

    Args:
        folder: of the checkpoints.
        every: steps between them.
        best: the validation's metric by which one more is kept; None keeps the last alone.
        mode: whether the best is the largest or the smallest.
        export: which one's weights the policy has after training.

    Attributes:
        exported_step: the step that these are of; None before.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        best: str | None = None,
        mode: Literal["max", "min"] = "max",
        export: Literal["last", "best"] = "last",
    ) -> None:
        self.folder, self.every, self.metric, self.mode = folder, every, best, mode
        self.export = export
        self.exported_step: int | None = None
        self.best_step: int | None = None
        self.best_value = math.nan
        self.last_step: int | None = None

    @property
    def best(self) -> Path | None:
        """The best checkpoint so far, where one is kept and still there."""
        path = None if self.best_step is None else self._path(self.best_step)
        return path if path is not None and path.exists() else None

    def offer(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hears of a validation after `step`; the first of equals is kept.

        Raises:
            RunError: validation has no such metric.
        """
        if self.metric is None:
            return
        if self.metric not in metrics:
            raise RunError(
                f"trainer.keep.best={self.metric}: validation gives no such number; there are "
                + ", ".join(sorted(metrics))
            )
        value = metrics[self.metric]
        better = value > self.best_value if self.mode == "max" else value < self.best_value
        if math.isfinite(value) and (better or self.best_step is None):
            self.best_step, self.best_value = step, value

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forgets a best checkpoint that is no longer there."""
        if self.best_step is not None and self.best is None:
            self.best_step, self.best_value = None, math.nan

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Saves where it is time."""
        step = trainer.global_step
        # Every process saves its part, so all must come to one decision.
        self.best_step, self.best_value = trainer.strategy.broadcast(
            (self.best_step, self.best_value)
        )
        if step % self.every == 0 or step in (self.best_step, trainer.max_steps):
            self.save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes back the best weights, and their average where one is kept, if they are asked for.

        Raises:
            RunError: there is no best checkpoint.
        """
        self.exported_step = trainer.global_step
        if self.export == "last":
            return
        path = self.best
        if path is None or self.best_step is None:
            raise RunError(
                f"trainer.export_checkpoint=best: no validation gave a finite {self.metric}; "
                "validate more often (trainer.validate_every), or take "
                "trainer.export_checkpoint=last"
            )
        if self.best_step != self.exported_step:
            checkpoint = trainer.strategy.load_checkpoint(path, weights_only=True)
            trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
            trainer.strategy.load_optimizer_state_dict(checkpoint)
            self.exported_step = self.best_step

    def save(self, trainer: pl.Trainer, step: int | None = None) -> None:
        """Saves the state after the steps taken, unless it was, and removes what is older.

        Args:
            step: the steps taken; None asks the trainer.

        Raises:
            RunError: the disk cannot be written.
        """
        step = trainer.global_step if step is None else step
        if step == self.last_step:
            return
        trainer.save_checkpoint(self._path(step))
        self.last_step = step
        if trainer.is_global_zero:
            self._remove_others()

    def _remove_others(self) -> None:
        kept = {self.last_step, self.best_step}
        for path in self.folder.glob("step-*.ckpt"):
            match = NAME.fullmatch(path.name)
            if match is None or int(match[1]) in kept:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best_step": self.best_step, "best_value": self.best_value, "metric": self.metric}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back, where the same metric decides."""
        if state_dict["metric"] == self.metric:
            self.best_step, self.best_value = state_dict["best_step"], state_dict["best_value"]


def save_now(trainer: pl.Trainer) -> str:
    """Saves the state after the steps taken, in the middle of a step, and says so."""
    checkpoints = trainer.checkpoint_callback
    if not isinstance(checkpoints, Checkpoints) or trainer.global_step == 0:
        return "no step was taken"
    checkpoints.save(trainer)
    return f"a checkpoint of step {trainer.global_step} is saved"


def stored_bytes(checkpoint: Any) -> int:
    """What the tensors of a checkpoint take on disk; those that share memory count once."""
    sizes: dict[int, int] = {}
    waiting = [checkpoint]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            storage = one.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
    return sum(sizes.values())
