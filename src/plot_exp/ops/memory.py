"""How many logits to hold at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

CHUNK_BYTES = {"cpu": 2**28, "cuda": 2**32}
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**29}
# Of the free memory, the share that one chunk, and all kept logits, may take.
CHUNK_SHARE, KEPT_SHARE = 8, 4
# Logits of this size are kept without a question, and so much is taken to be free where the system
# does not say.
SMALL_BYTES, UNKNOWN_BYTES = 2**26, 2**32
# The kind of device and its free bytes, where they are supposed and not asked for.
_supposed: ContextVar[tuple[str, Callable[[], int]] | None] = ContextVar("supposed", default=None)
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class HeadPlan:
    """How the head walks over N positions.

    Chunks are as large as matrix products like them and do not depend on what is kept, so that
    on a CPU the free memory changes the speed but no bit of a result. Within a chunk, what is not
    a matrix product goes over blocks of rows that stay in the cache.

    Attributes:
        chunk: positions a matrix product.
        keep: keep every chunk's logits for the backward pass, else compute them again there.
        block: positions at a time for everything else.
    """

    chunk: int
    keep: bool
    block: int

    @staticmethod
    def of(
        positions: int,
        vocab_size: int,
        dtype: torch.dtype,
        device: torch.device,
        chunk: int | Literal["auto"] = "auto",
    ) -> HeadPlan:
        """The plan for logits [positions, vocab_size].

        Args:
            dtype: of the logits.
            chunk: set by hand: no more positions than this are held at any time.
        """
        kind = device_kind(device)
        row = vocab_size * max(dtype.itemsize, 4)
        cores = torch.get_num_threads() if kind == "cpu" else 1
        block = max(1, cores * BLOCK_BYTES[kind] // row)
        if chunk != "auto":
            return HeadPlan(chunk, positions <= chunk, block)
        room, logits = CHUNK_BYTES[kind], positions * vocab_size * dtype.itemsize
        if logits <= SMALL_BYTES:
            return HeadPlan(max(1, room // row), True, block)
        free = free_bytes(device)
        if kind == "cuda":
            room = min(room, free // CHUNK_SHARE)
        return HeadPlan(max(1, room // row), logits <= free // KEPT_SHARE, block)


@contextmanager
def supposing(kind: str, free: Callable[[], int]) -> Iterator[None]:
    """Plans the head as on another device, for a rehearsal where it is not there.

    Args:
        kind: `cpu` or `cuda`.
        free: gives the bytes that are free at the moment.
    """
    token = _supposed.set((kind, free))
    try:
        yield
    finally:
        _supposed.reset(token)


def device_kind(device: torch.device) -> str:
    """`cuda`, or `cpu` for every other."""
    supposed = _supposed.get()
    if supposed is not None:
        return supposed[0]
    return "cuda" if device.type == "cuda" else "cpu"


def free_bytes(device: torch.device) -> int:
    """What may still be allocated: on the device, counting what torch holds unused, or in RAM."""
    supposed = _supposed.get()
    if supposed is not None:
        return supposed[1]()
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    free = _available()
    limit = _number(CGROUP / "memory.max")
    if limit is not None:
        used = _number(CGROUP / "memory.current") or 0
        cached = _fields(CGROUP / "memory.stat").get("inactive_file", 0)
        free = min(free, limit - used + cached)
    return max(0, free)


def _available() -> int:
    kilobytes = _fields(MEMINFO).get("MemAvailable:")
    if kilobytes is not None:
        return kilobytes * 1024
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return UNKNOWN_BYTES


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a kernel file whose lines are a name and a number."""
    try:
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
