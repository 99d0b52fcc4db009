"""The one door through which a run's numbers leave the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plot_exp.config.schema import Config
from plot_exp.tracking.csv_log import CsvLog
from plot_exp.tracking.wandb_log import WandbLog


class Tracker:
    """Writes to `metrics.csv` always, and to W&B with `logger=wandb`.

    On several devices only the first process makes one. W&B never raises from here: where it is
    lost, that is said once, and what `metrics.csv` holds goes into a run that can be sent later. A
    disk that cannot be written does raise.

    Args:
        run_dir: the run's folder, which exists.
        config: the whole configuration; W&B gets it in full.
        resume_step: the step of the checkpoint that the run goes on from; None for a new run.

    Raises:
        RunError: the disk cannot be written.
    """

    def __init__(self, run_dir: Path, config: Config, *, resume_step: int | None) -> None:
        self._csv = CsvLog(run_dir / "metrics.csv", resume_step=resume_step)
        wanted = config.logger.name == "wandb"
        self._wandb = WandbLog(run_dir, config, self._csv.rows) if wanted else None

    @property
    def where(self) -> str | None:
        """Where W&B keeps this run (an address, or how to send an offline run), for a person."""
        return self._wandb.where if self._wandb else None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs scalars under their flat keys (`train/loss`) at optimizer step `step`."""
        self._csv.log(metrics, step)
        if self._wandb:
            self._wandb.log(metrics, step)

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
    ) -> None:
        """Shows a table in W&B; on disk such rows have files of their own (`samples.jsonl`)."""
        if self._wandb:
            self._wandb.table(name, columns, rows, step)

    def image(self, name: str, path: Path) -> None:
        """Shows a picture in W&B that already stands on disk."""
        if self._wandb:
            self._wandb.image(name, path)

    def artifact(self, name: str, kind: str, path: Path, *, upload: bool | None = None) -> None:
        """Records a file or folder as a W&B artifact.

        Args:
            name: its name among the project's artifacts.
            kind: `dataset`, `distribution` or `model`.
            path: the file or folder.
            upload: whether its content goes to W&B or only its address; None sends what is small.
        """
        if self._wandb:
            self._wandb.artifact(name, kind, path, upload=upload)

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Sets the run's final numbers in W&B; on disk they stand in `metrics.json`."""
        if self._wandb:
            self._wandb.summary(metrics)

    def close(self, exit_code: int) -> None:
        """Ends the W&B run, with 0 for success; a second call does nothing."""
        if self._wandb:
            self._wandb.close(exit_code)
