"""The Lightning trainer of a run: devices, precision, checkpoints."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO

from plot_exp.config.schema import TrainerConfig
from plot_exp.disk import require_space
from plot_exp.errors import UserError
from plot_exp.files import replacing
from plot_exp.training.preemption import Preemption
from plot_exp.training.retention import NAME as CHECKPOINT_NAME
from plot_exp.training.retention import Checkpoints, stored_bytes
from plot_exp.workflows.device import device_of
from plot_exp.workflows.strategies import in_parts, strategy_of


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
        place.parent.mkdir(parents=True, exist_ok=True)
        require_space(place, stored_bytes(checkpoint))
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
    keep = config.keep
    folder = run_dir / "checkpoints"
    checkpoints = Checkpoints(
        folder, config.checkpoint_every, keep.best, keep.mode, config.export_checkpoint
    )
    shared = strategy_of(config)
    return pl.Trainer(
        accelerator=device_of(config).type,
        # Weights are cast where the model is opened, its reference's among them.
        precision=config.precision if config.precision == "bf16-mixed" else "32-true",
        max_steps=steps,
        max_epochs=1,
        logger=False,
        callbacks=[checkpoints, *callbacks, Preemption(checkpoints.save)],
        # Not what SLURM's variables would make of one process: requeuing is `interruption`'s.
        plugins=[*shared.pop("plugins", [LightningEnvironment()]), WholeCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run_dir,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **shared,
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
            raise exit_.__context__ from None
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
            if not in_parts(path):
                torch.load(path, map_location="meta", weights_only=True)
        except Exception:
            continue
        return path
    return None


def checkpoint_step(path: Path) -> int:
    """The optimizer step that a checkpoint was written after."""
    match = CHECKPOINT_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])
