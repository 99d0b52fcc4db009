"""Every combination of the listed values: all are checked first, and one failure stops no other."""

from __future__ import annotations

import fcntl
import gc
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from plot_exp.config.combinations import check
from plot_exp.config.composition import CONFIG_NAME, composed, points, to_config
from plot_exp.config.problems import shown
from plot_exp.config.safety import unsafe_name
from plot_exp.dispatch import Outcome, remove_empty, run_point
from plot_exp.errors import UserError
from plot_exp.files import prepare_folder
from plot_exp.tracking.wandb_log import GROUP

# Where Hydra's Optuna sweeper leaves what it found.
SEARCH_RESULTS = "optimization_results.yaml"


def sweep(hydra: Hydra, overrides: list[str]) -> int:
    """Run the sweep that the overrides describe.

    Returns:
        The exit code: 0, 2 where every failure was bad input, else 1.

    Raises:
        UserError: a point is wrong; none has begun then.
    """
    overrides = [*overrides, "hydra.mode=MULTIRUN"]
    master = composed(hydra, overrides, multirun=True)
    check_points(hydra, points(master))
    if (why := unsafe_name(str(master.name))) is not None:
        raise UserError(f"name={shown(master.name)}: must be a folder name ({why})")
    HydraConfig.instance().set_config(master)
    folder = Path(str(OmegaConf.select(master, "hydra.sweep.dir"))).absolute()
    prepare_folder(folder)
    returned = hydra.multirun(CONFIG_NAME, point, overrides, with_log_configuration=False)
    outcomes = [job.return_value for batch in returned or [] for job in batch]
    summarise(returned or [], folder)
    codes = {outcome.exit_code for outcome in outcomes if outcome.status == "failed"}
    return 0 if not codes else 2 if codes == {UserError.exit_code} else 1


def check_points(hydra: Hydra, every_point: Sequence[Sequence[str]]) -> None:
    """Compose and check each point, before the first one starts.

    Raises:
        UserError: naming the first point that is wrong.
    """
    for overrides in every_point:
        try:
            check(to_config(composed(hydra, overrides)))
        except UserError as error:
            own = " ".join(text for text in overrides if not text.startswith("hydra."))
            raise UserError(f"in the sweep's point '{own}': {error}") from error


def point(node: DictConfig) -> Outcome:
    """One point, in whatever process the launcher chose for it."""
    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    print(f"\nPoint {hydra.job.num + 1}: {' '.join(hydra.overrides.task)}", flush=True)
    try:
        config = to_config(node, hydra.runtime.choices.get("loss"))
        check(config)
        with alone_in(run_dir), wandb_group(run_dir.parent.name):
            outcome = run_point(config, run_dir)
        outcome.objective = config.objective
    except UserError as error:
        outcome = Outcome(run_dir, "failed", error.exit_code, str(error))
    gc.collect()
    return outcome


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other process of a sweep works in the folder meanwhile; left empty, it is taken away.

    The lock is the system's own: a killed process leaves none. A file system that knows no locks
    on folders gives none.

    Raises:
        UserError: another process is at work there.
    """
    prepare_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another process is at work there; once it has ended, the same "
                "command again runs what is missing"
            ) from error
        except OSError:
            pass
        yield
        remove_empty([folder])
    finally:
        os.close(descriptor)


@contextmanager
def wandb_group(name: str) -> Iterator[None]:
    """W&B shows the runs that begin in here as one group; what the user set wins."""
    if GROUP in os.environ:
        yield
        return
    os.environ[GROUP] = name
    try:
        yield
    finally:
        os.environ.pop(GROUP, None)


def summarise(batches: Sequence[Sequence[JobReturn]], folder: Path) -> None:
    """Print what became of each point, how many of each, and how to compare them."""
    print(f"\nSweep in {folder}")
    jobs = [job for batch in batches for job in batch]
    common = _common([job.overrides or [] for job in jobs])
    if common:
        print(f"  every point with {' '.join(common)}")
    for job in jobs:
        outcome: Outcome = job.return_value
        reason = f": {outcome.message}" if outcome.message else ""
        own = [text for text in job.overrides or [] if text not in common]
        print(f"  {outcome.status:<8}{' '.join(own) or 'defaults'}{reason}")
    counts = Counter(job.return_value.status for job in jobs)
    if len(jobs) > 1:
        print(", ".join(f"{count} {status}" for status, count in counts.items()))
    best = folder / SEARCH_RESULTS
    if not batches and best.is_file():
        print(best.read_text(encoding="utf-8").rstrip())
    if counts["done"] + counts["skipped"] > 1 or best.is_file():
        print(f"To compare them: python -m plot_exp task=report runs={shlex.quote(str(folder))}")


def _common(overrides: Sequence[Sequence[str]]) -> list[str]:
    """What is said of every point, where there are several."""
    if len(overrides) < 2:
        return []
    return [text for text in overrides[0] if all(text in others for others in overrides)]
