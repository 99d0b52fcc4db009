"""One run: its folder, its workflow, and what is said when it fails."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from plot_exp.config.combinations import check
from plot_exp.config.limits import apply_limits
from plot_exp.config.problems import validated
from plot_exp.config.schema import Config, load
from plot_exp.disk import full_disk, is_full
from plot_exp.errors import PausedError, RunError, UserError
from plot_exp.files import prepare_folder
from plot_exp.interruption import watching
from plot_exp.processes.ranks import is_shared, settled, speaks
from plot_exp.processes.session import EndedError, current
from plot_exp.redaction import redact

# What may differ between two commands that mean the same run.
INCIDENTAL = (
    "resume",
    "objective",
    "cache_dir",
    "output_dir",
    "logger.",
    "trainer.progress",
    "trainer.devices",
    "trainer.nodes",
    "trainer.timeout",
    "export.",
    "limits.",
)

# What a resumed run may change: where it goes on.
ELSEWHERE = ("trainer.devices", "trainer.nodes")

Status = Literal["done", "skipped", "failed"]


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        exit_code: what the shell sees: 0, 1 for a failed run, 2 for bad input.
        message: why it failed, or why nothing was run.
        unexpected: what failed is nothing that the run itself looks for.
        objective: the metric that `float` gives, for a sweeper that searches.
    """

    run_dir: Path
    status: Status = "done"
    exit_code: int = 0
    message: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    objective: str = ""
    unexpected: bool = False

    def __post_init__(self) -> None:
        self.message = redact(self.message)

    def __float__(self) -> float:
        """The metric that a search looks at.

        Raises:
            ValueError: the run has no such number; a search counts it as failed.
        """
        if self.objective not in self.metrics:
            raise ValueError(f"{self.run_dir} has no {self.objective}")
        return self.metrics[self.objective]


def run(config: Config, run_dir: Path) -> Outcome:
    """Run the workflow that `task` names, in `run_dir`, in as many processes as it takes.

    Failures become an outcome; only an interruption passes through. A folder that was made for a
    run which never began is taken away again.
    """
    try:
        config = settled(config)
        if is_shared(config):
            from plot_exp.processes.shared_run import share_run

            return share_run(config, run_dir, _run)
    except (UserError, RunError) as error:
        show_traceback()
        return Outcome(run_dir, "failed", error.exit_code, str(error))
    return _run(config, run_dir)


def _run(config: Config, run_dir: Path) -> Outcome:
    """The same in this process, which leaves the folder to the first one of its run."""
    apply_limits(config.limits)
    leads = current().leads
    made = _missing_parents(run_dir) if leads else []
    try:
        if leads:
            prepare_folder(run_dir)
        with watching(requeue=config.trainer.requeue):
            workflow = importlib.import_module(f"plot_exp.workflows.{config.task}")
            metrics = workflow.run(config, run_dir)
        return Outcome(run_dir, metrics=dict(metrics or {}))
    except (UserError, RunError) as error:
        show_traceback()
        of_another = isinstance(error, EndedError)
        return Outcome(
            run_dir,
            "failed",
            error.exit_code,
            _with_way_on(error, config, run_dir),
            unexpected=of_another,
        )
    except Exception as error:
        show_traceback()
        if is_full(error):
            paused = PausedError(full_disk(run_dir / "config.yaml"))
            message = _with_way_on(paused, config, run_dir)
            return Outcome(run_dir, "failed", paused.exit_code, message)
        message = _unexpected(error, run_dir)
        return Outcome(run_dir, "failed", RunError.exit_code, message, unexpected=True)
    finally:
        remove_empty(made)


def resumed(run_dir: Path, changes: Mapping[str, str] | None = None) -> Config:
    """The configuration of an earlier run, set to go on.

    Args:
        changes: of `ELSEWHERE`, as they stand on the command line.

    Raises:
        UserError: the directory holds no run, or its configuration no longer fits.
    """
    if not run_dir.is_dir():
        raise UserError(f"resume={run_dir}: there is no such directory; name a run directory")
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"resume={run_dir}: no run began there, it has no config.yaml")
    config = load(run_dir / "config.yaml").model_copy(update={"resume": str(run_dir)})
    if changes:
        plain = config.plain()
        for key, value in changes.items():
            section, _, name = key.partition(".")
            plain[section][name] = yaml.safe_load(value)
        config = validated(Config, plain, source=" ".join(map("=".join, changes.items())))
    if config.task != "train":
        raise UserError(f"resume={run_dir}: this was task={config.task}; only training is resumed")
    check(config)
    return config


def run_point(config: Config, run_dir: Path) -> Outcome:
    """A sweep's point: skipped where it is finished, resumed where it was begun, else run."""
    try:
        config = settled(config)
    except UserError as error:
        return Outcome(run_dir, "failed", error.exit_code, str(error))
    if not (run_dir / "config.yaml").is_file():
        return run(config, run_dir)
    try:
        earlier = load(run_dir / "config.yaml")
        if different := _differences(config, earlier):
            raise UserError(
                f"{run_dir} holds a run with other settings ({different}); "
                "choose another name=, or remove that folder"
            )
    except UserError as error:
        return Outcome(run_dir, "failed", error.exit_code, str(error))
    if (run_dir / "metrics.json").is_file():
        metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
        return Outcome(run_dir, "skipped", message="finished before", metrics=metrics)
    if config.task == "train":
        config = config.model_copy(update={"resume": str(run_dir)})
    return run(config, run_dir)


def show_traceback() -> None:
    """Print the stack trace of the error at hand, where it was asked for."""
    if wants_traceback():
        print(redact(traceback.format_exc()), file=sys.stderr)


def wants_traceback() -> bool:
    """Whether stack traces were asked for."""
    return os.environ.get("PLOT_EXP_TRACEBACK", "0") not in ("", "0")


def _differences(config: Config, earlier: Config) -> str:
    """The keys that differ and matter, as `trainer.max_steps: 4 then, 8 now`."""
    now, then = _flat(config.plain()), _flat(earlier.plain())
    keys = [key for key in sorted({*now, *then}) if now.get(key) != then.get(key)]
    return ", ".join(
        f"{key}: {then.get(key)} then, {now.get(key)} now"
        for key in keys
        if not key.startswith(INCIDENTAL)
    )


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    leaves: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def _with_way_on(error: Exception, config: Config, run_dir: Path) -> str:
    """The error's message, and how to go on where that needs no other setting."""
    begun = config.task == "train" and (run_dir / "config.yaml").is_file()
    if isinstance(error, PausedError) and begun:
        return f"{error}: python -m plot_exp resume={run_dir}"
    return str(error)


def _unexpected(error: Exception, run_dir: Path) -> str:
    """One line, and where the whole trace is kept."""
    first = next((line for line in str(error).splitlines() if line.strip()), "no message")
    line = f"{type(error).__name__}: {first}"
    rank = current().ranks.rank
    path = run_dir / (f"error-{rank}.log" if rank else "error.log")
    try:
        path.write_text(redact(traceback.format_exc()), encoding="utf-8")
    except OSError:
        return f"{line} (PLOT_EXP_TRACEBACK=1 shows where)"
    return f"{line} (the stack trace is in {path})"


def _missing_parents(run_dir: Path) -> list[Path]:
    """`run_dir` and those of its parents that do not exist yet, the innermost first."""
    folders = [run_dir, *run_dir.parents]
    return [folder for folder in folders if not folder.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove these folders, the innermost first, up to the first one that holds something."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def complain(message: str) -> None:
    """Say on stderr what is wrong; of several processes that were started alike one does."""
    if not speaks():
        return
    print(f"error: {redact(message)}", file=sys.stderr)
