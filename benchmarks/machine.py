"""What every table of a benchmark says of the machine and the versions that made it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def processor() -> str:
    """The GPU's name where there is one, and the CPU's."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").split("\n"):
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{torch.cuda.get_device_name()}, {name}" if torch.cuda.is_available() else name


def describe(threads: int) -> str:
    """Processor, cores, threads and versions, as one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{processor()}, {cores} cores, {threads} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {version('transformers')}"
    )
