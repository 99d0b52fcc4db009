"""The Lightning trainer of a run: devices, precision, checkpoints, progress."""

from __future__ import annotations

import logging
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from plot_exp.config.schema import TrainerConfig
from plot_exp.errors import UserError
from plot_exp.files import replacing
from plot_exp.module import PreferenceModule

CHECKPOINT_NAME = re.compile(r"step-(\d+)\.ckpt")


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place and renamed once they are whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes one checkpoint.

        Raises:
            RunError: the disk cannot be written.
        """
        place = Path(path)
        with replacing(place) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch's own writer hides the system's reason.
                cause = error.__context__
                raise cause if isinstance(cause, OSError) else OSError(str(error)) from error


def require_accelerator(config: TrainerConfig) -> None:
    """Looks for the accelerator before any work is done.

    Raises:
        UserError: it is not there.
    """
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer=gpu: this machine has no GPU that torch can use; try trainer=cpu")


def build_trainer(
    config: TrainerConfig, run_dir: Path, steps: int, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """A trainer that runs `steps` optimizer steps as one epoch."""
    # Lightning's start-up lines and its advice on loggers and workers do not fit this loop.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")
    checkpoints = ModelCheckpoint(
        dirpath=run_dir / "checkpoints",
        filename="step-{step}",
        auto_insert_metric_name=False,
        every_n_train_steps=config.checkpoint_every,
        save_top_k=1,
        save_on_train_epoch_end=False,
    )
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=1,
        # Weights are cast where the model is opened, its reference's among them.
        precision=config.precision if config.precision == "bf16-mixed" else "32-true",
        max_steps=steps,
        max_epochs=1,
        logger=False,
        callbacks=[checkpoints, *callbacks],
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run_dir,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C through as what it is: Lightning turns it into a silent exit."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt from exit_
        raise


def last_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint that can be read; one that a kill left torn is passed over."""
    folder = run_dir / "checkpoints"
    found: list[tuple[int, Path]] = []
    for path in folder.glob("*.ckpt"):
        if match := CHECKPOINT_NAME.fullmatch(path.name):
            found.append((int(match[1]), path))
    for _, path in sorted(found, reverse=True):
        try:
            torch.load(path, map_location="meta", weights_only=True)
        except Exception:
            continue
        return path
    return None


def remove_older_checkpoints(run_dir: Path) -> None:
    """Leaves the newest readable checkpoint alone; a resumed run has kept its first one."""
    newest = last_checkpoint(run_dir)
    for path in (run_dir / "checkpoints").glob("step-*.ckpt"):
        if newest is not None and path != newest:
            path.unlink(missing_ok=True)


def checkpoint_step(path: Path) -> int:
    """The optimizer step that a checkpoint was written after."""
    match = CHECKPOINT_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


class StepBar(pl.Callback):
    """One bar over the run's optimizer steps, or a line now and then without a terminal."""

    LINES = 10

    def __init__(self, steps: int, first: int, interactive: bool) -> None:
        self.steps, self.first, self.interactive = steps, first, interactive
        self._bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar."""
        from tqdm import tqdm

        if self.interactive:
            self._bar = tqdm(
                total=self.steps, initial=self.first, desc="training", dynamic_ncols=True
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Moves it on by one step."""
        assert isinstance(pl_module, PreferenceModule)
        step = pl_module.completed_steps
        shown = " ".join(f"{key} {value:.3f}" for key, value in pl_module.latest.items())
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(step - self._bar.n)
        elif step % max(1, self.steps // self.LINES) == 0 or step == self.steps:
            print(f"training: step {step} of {self.steps} {shown}", flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes it."""
        if self._bar is not None:
            self._bar.close()
