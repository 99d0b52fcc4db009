"""`environment.json`: what a run ran on, and the command that repeats it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import plot_exp
from plot_exp.files import write_json
from plot_exp.redaction import redact

PACKAGES = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "datasets",
    "safetensors",
    "numpy",
    "hydra-core",
    "pydantic",
    "wandb",
    "matplotlib",
)


def write(run_dir: Path, seeds: Mapping[str, int]) -> None:
    """Writes `environment.json`; a resumed run keeps the first record and adds its own.

    Args:
        run_dir: the run's folder.
        seeds: each seed of the run by what it decides, `{"run": 0, "split": 0}`.

    Raises:
        RunError: the disk cannot be written.
    """
    path = run_dir / "environment.json"
    record = describe(seeds)
    try:
        first = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        first = None
    if isinstance(first, dict):
        record = {**first, "resumed": [*first.get("resumed", []), record]}
    write_json(path, record)


def describe(seeds: Mapping[str, int]) -> dict[str, Any]:
    """Versions, commit, hardware, cores, seeds and command; no variable of the environment."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(sys.argv[1:]),
        "seeds": dict(seeds),
        "plot_exp": plot_exp.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "hardware": hardware(),
    }


def command(arguments: list[str]) -> str:
    """The line that a shell takes to start this run again."""
    return redact(shlex.join(["python", "-m", "plot_exp", *arguments]))


def commit() -> dict[str, Any] | None:
    """The commit of the source tree and whether it was changed; None where git does not hold it."""
    source = Path(plot_exp.__file__).resolve()
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    revision = _git(source.parent, "rev-parse", "HEAD")
    status = _git(source.parent, "status", "--porcelain", "--untracked-files=no")
    return {"id": revision, "changed": bool(status)} if revision else None


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerators as torch sees them."""
    import torch

    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "torch_threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "gpus": [],
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            found["gpus"].append(
                {"name": device.name, "memory_gb": round(device.total_memory / 2**30, 1)}
            )
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
