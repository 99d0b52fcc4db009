"""A run that is asked to end finishes its step, saves a checkpoint and stops, on every process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from plot_exp import interruption


class Preemption(pl.Callback):
    """Looks for a signal after every step (see `interruption`).

    With several processes they agree in every step, since a signal reaches some of them earlier,
    some perhaps never. They do so on the CPU, whose group every run has: no accelerator is waited
    for.

    Args:
        save: saves a checkpoint of the steps taken.
    """

    def __init__(self, save: Callable[[pl.Trainer], None]) -> None:
        self.save = save

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on signals wait for the end of a step."""
        if watch := interruption.active():
            watch.defer()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Saves and stops where a signal came.

        Raises:
            Interrupted: a signal came.
        """
        watch = interruption.active()
        number = self._agreed(trainer, 0 if watch is None else int(watch.received or 0))
        if not number:
            return
        self.save(trainer)
        note = f" after step {trainer.global_step}, of which a checkpoint is saved"
        if watch is None:
            raise interruption.Interrupted(signal.Signals(number), note)
        watch.stop(signal.Signals(number), note)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on signals end the run at once again."""
        if watch := interruption.active():
            watch.release()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """The same; the exception has precedence."""
        if watch := interruption.active():
            watch.abandon()

    def _agreed(self, trainer: pl.Trainer, number: int) -> int:
        """The largest signal number that any process has received; 0 for none."""
        if trainer.world_size == 1 or not dist.is_initialized():
            return number
        shared = torch.tensor([number])
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return int(shared)
