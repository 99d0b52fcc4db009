"""How far training has come: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl

from plot_exp.data.collate import Batch
from plot_exp.module import PreferenceModule
from plot_exp.training.metrics import peak_memory

TITLES = {
    "train/loss": "loss",
    "train/reward_accuracy": "reward accuracy",
    "val/reward_accuracy": "validation reward accuracy",
}


class Heartbeat(pl.Callback):
    """One line every `seconds`, and after the first and the last step; the first process alone.

    Rates are those since the line before, validations included, so that they say what the run
    really needs; the loss is that of the last logged step, for which nobody has to wait.

    Args:
        steps: of the whole run.
        seconds: between lines.
        say: takes a line.
        clock: seconds from any start.
    """

    def __init__(
        self,
        steps: int,
        seconds: float,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps, self.seconds, self.say, self.clock = steps, seconds, say, clock
        self._began = self._beat = 0.0
        self._first: int | None = None
        self._pairs = self._tokens = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._began = self._beat = self.clock()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Sequence[Batch],
        batch_idx: int,
    ) -> None:
        """Counts the step, and says how far the run is where it is time."""
        assert isinstance(pl_module, PreferenceModule)
        if not trainer.is_global_zero:
            return
        step, now = pl_module.completed_steps, self.clock()
        # Each process has as good as the same share of the batch.
        self._pairs += sum(len(one.responses.pairs) for one in batch) * trainer.world_size
        self._tokens += sum(one.tokens for one in batch) * trainer.world_size
        first = self._first is None
        if first:
            self._first = step - 1
        if not (first or step == self.steps or now - self._beat >= self.seconds):
            return
        self.say(self._line(pl_module, step, now))
        self._beat, self._pairs, self._tokens = now, 0, 0

    def _line(self, module: PreferenceModule, step: int, now: float) -> str:
        assert self._first is not None
        since = max(now - self._beat, 1e-9)
        a_step = (now - self._began) / max(1, step - self._first)
        parts = [f"training: step {step} of {self.steps} ({100 * step // self.steps} %)"]
        parts += [
            f"{title} {module.latest[key]:.3f}"
            for key, title in TITLES.items()
            if key in module.latest
        ]
        if self._pairs:
            parts.append(f"{self._pairs / since:.1f} pairs/s")
        parts.append(f"{self._tokens / since:,.0f} tokens/s")
        parts.append(f"memory {peak_memory(module.policy.device):.1f} GB at most")
        if step < self.steps:
            parts.append(f"about {duration(a_step * (self.steps - step))} left")
        return ", ".join(parts)


class StepBar(pl.Callback):
    """One bar over the run's optimizer steps, for a terminal.

    Args:
        steps: of the whole run.
        first: how many were taken before.
    """

    def __init__(self, steps: int, first: int) -> None:
        self.steps, self.first = steps, first
        self._bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar."""
        from tqdm import tqdm

        if trainer.is_global_zero:
            self._bar = tqdm(
                total=self.steps, initial=self.first, desc="training", dynamic_ncols=True
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Moves it on by one step."""
        assert isinstance(pl_module, PreferenceModule)
        if self._bar is not None:
            shown = " ".join(f"{key} {value:.3f}" for key, value in pl_module.latest.items())
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(pl_module.completed_steps - self._bar.n)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes it."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
