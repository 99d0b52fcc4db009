"""A SLURM job that is put back into the queue, and finds its run folder when it starts again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plot_exp.files import write_json

RECORDS = ".slurm"
SCONTROL_SECONDS = 20
INTERACTIVE = ("bash", "interactive")


def job_id() -> str | None:
    """The batch job that this process belongs to; None elsewhere, interactive jobs included."""
    environment = os.environ
    job = environment.get("SLURM_JOB_ID")
    if not job or environment.get("SLURM_JOB_NAME") in INTERACTIVE:
        return None
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else job
    return job if re.fullmatch(r"[0-9_]+", job) else None


def first_process() -> bool:
    """Whether this is the first of the processes that a launcher started, or the only one."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return os.environ[name] == "0"
    return True


def requeue() -> str:
    """Asks SLURM to put the job back into the queue.

    A job that its user cancelled is left to end; `scontrol show job` tells.

    Returns:
        What came of it, to be appended to a sentence; empty outside of a batch job.
    """
    job = job_id()
    if job is None:
        return ""
    if "JobState=CANCELLED" in _scontrol("show", "job", job)[1]:
        return f"; SLURM job {job} was cancelled and is not requeued"
    done, said = _scontrol("requeue", job)
    if done:
        return f"; SLURM job {job} is requeued and finds this run again by itself"
    return f"; SLURM job {job} could not be requeued ({said})"


def _scontrol(*arguments: str) -> tuple[bool, str]:
    """Whether the command succeeded, and what it said."""
    try:
        done = subprocess.run(
            ["scontrol", *arguments],
            capture_output=True,
            text=True,
            timeout=SCONTROL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"scontrol: {error}"
    said = " ".join((done.stdout if done.returncode == 0 else done.stderr).split())
    return done.returncode == 0, said or f"scontrol: exit code {done.returncode}"


def remember(output_dir: Path, command: Sequence[str], run_dir: Path) -> None:
    """Notes which folder this job's command trains in.

    Raises:
        RunError: the disk cannot be written.
    """
    if (job := job_id()) is not None and first_process():
        write_json(_record(output_dir, job, command), {"run": str(run_dir)})


def remembered(output_dir: Path, command: Sequence[str]) -> Path | None:
    """The folder in which this command trained before SLURM started its job again.

    None for a first start (`SLURM_RESTART_COUNT`), and where the run had not come so far as to
    write its config.yaml.
    """
    job = job_id()
    if job is None or os.environ.get("SLURM_RESTART_COUNT", "0") in ("", "0"):
        return None
    try:
        record = json.loads(_record(output_dir, job, command).read_text(encoding="utf-8"))
        run_dir = Path(record["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run_dir if (run_dir / "config.yaml").is_file() else None


def _record(output_dir: Path, job: str, command: Sequence[str]) -> Path:
    """A job may run several commands, each with a run of its own."""
    digest = hashlib.sha256("\0".join(command).encode()).hexdigest()[:12]
    return output_dir / RECORDS / f"{job}-{digest}.json"
