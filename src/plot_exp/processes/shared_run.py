"""A run that several processes share: all do the same work, and the first one writes and speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from plot_exp.config.schema import Config, TrainerConfig
from plot_exp.dispatch import Outcome, complain, wants_traceback
from plot_exp.errors import RunError
from plot_exp.interruption import Interrupted
from plot_exp.processes.children import Children
from plot_exp.processes.ranks import Ranks, started_outside
from plot_exp.processes.session import Failure, Joined, connect, entered

Work = Callable[[Config, Path], Outcome]


def share_run(config: Config, run_dir: Path, work: Work) -> Outcome:
    """Does `work` in every process of the run, those that have to be started first included.

    A process that fails ends the others. What is said is the first failure, once, by the first
    process; the outcome of the others says nothing.

    Args:
        work: gives an outcome, whatever fails; only an interruption passes through.
    """
    with ExitStack() as stack:
        ranks = started_outside()
        if ranks is not None and ranks.rank > 0:
            stack.enter_context(_silence())
        session, run_dir = _joined(config, run_dir, ranks, stack)
        try:
            outcome = work(config, run_dir)
        except BaseException as error:
            session.fail(_interruption(session.ranks, error))
            raise
        return _told(session, outcome)


def _joined(
    config: Config, run_dir: Path, ranks: Ranks | None, stack: ExitStack
) -> tuple[Joined, Path]:
    """This process's session, with everybody there, and the folder that the first one chose."""
    timeout = timedelta(minutes=config.trainer.timeout)
    own = ranks is None
    ranks = ranks or Ranks(size=int(config.trainer.devices), local_size=int(config.trainer.devices))
    ranks, store, connection = connect(ranks, timeout)
    children = Children(config, run_dir, ranks) if own and ranks.size > 1 else None
    alarm = _alarm(ranks, run_dir)
    session = Joined(ranks, store, connection(), children, alarm)
    stack.callback(session.close)
    session.meet()
    run_dir = Path(session.share("run_dir", str(run_dir)))
    stack.enter_context(_device(config.trainer, ranks))
    stack.enter_context(_group(config.trainer, ranks, store, timeout))
    stack.enter_context(entered(session))
    return session, run_dir


def _told(session: Joined, outcome: Outcome) -> Outcome:
    """The outcome of the run: this process's own, or the failure of another one."""
    if outcome.status != "failed":
        return outcome
    own = Failure(session.ranks.rank, outcome.exit_code, outcome.message)
    # A broken connection is what others see of a process that failed.
    cause = session.cause() if outcome.unexpected else None
    cause = cause or session.fail(own)
    return replace(outcome, exit_code=cause.exit_code, message=_said(cause, outcome.run_dir))


def _interruption(ranks: Ranks, error: BaseException) -> Failure:
    """What the others hear of a signal, which may have reached this process alone."""
    if not isinstance(error, Interrupted):
        return Failure(ranks.rank, RunError.exit_code, "interrupted")
    message = f"process {ranks.rank} of {ranks.size} was ended by {error}{error.note}"
    return Failure(ranks.rank, error.exit_code, message, lost=True)


def _said(failure: Failure, run_dir: Path) -> str:
    """The failure, and how to go on where nothing but chance ended the run."""
    if failure.lost and (run_dir / "config.yaml").is_file():
        return f"{failure.message}; go on with: python -m plot_exp resume={run_dir}"
    return failure.message


def _alarm(ranks: Ranks, run_dir: Path) -> Callable[[Failure], None]:
    """Ends a process that waits, inside of a library, for one that is no more."""

    def end(failure: Failure) -> None:
        if ranks.rank == 0:
            complain(_said(failure, run_dir))
        sys.stderr.flush()
        os._exit(failure.exit_code)

    return end


@contextmanager
def _silence() -> Iterator[None]:
    """Every process would say the same; stack traces that were asked for are shown."""
    with ExitStack() as stack, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        stack.enter_context(redirect_stdout(nowhere))
        if not wants_traceback():
            stack.enter_context(redirect_stderr(nowhere))
        yield


@contextmanager
def _device(settings: TrainerConfig, ranks: Ranks) -> Iterator[None]:
    """This process's GPU, or its share of the processor's cores."""
    import torch

    if settings.accelerator != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank)
        yield
        return
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks.local_size))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _group(settings: TrainerConfig, ranks: Ranks, store: Any, timeout: timedelta) -> Iterator[None]:
    """torch.distributed's group of all processes: NCCL between GPUs, Gloo elsewhere."""
    import torch
    import torch.distributed as dist

    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(
        backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=timeout
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
