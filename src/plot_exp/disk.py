"""Disks that run full: asked before a large file is written, and recognised in an error."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from plot_exp.errors import PausedError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What writers say that keep the system's number to themselves (safetensors, tokenizers).
WORDS = ("no space left on device", "disk quota exceeded", "file too large")
# A file system keeps some for itself.
SPARE_BYTES = 2**20


def require_space(path: Path, needed: int) -> None:
    """Asks for room before a file of a known size is written beside those that stay.

    Raises:
        PausedError: there is not enough.
    """
    free = free_bytes(path.parent)
    if free is not None and free < needed + SPARE_BYTES:
        raise PausedError(full_disk(path, needed))


def full_disk(path: Path, needed: int | None = None, reason: str = "") -> str:
    """The sentence for a file that a full disk has no room for.

    Args:
        needed: bytes, where they are known.
        reason: what the system says.
    """
    folder = _existing(path.parent)
    free = free_bytes(folder)
    facts = [f"{_size(needed)} needed"] if needed is not None else []
    said = f" ({reason})" if reason else ""
    facts += [f"{_size(free)} free"] if free is not None else []
    return (
        f"{path} could not be written{said}: the disk of {folder} is full or its quota is used up "
        f"({', '.join(facts)}); what was there before is untouched. Free some space, or move the "
        "folder to a larger disk, then go on"
    )


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that the disk or a quota is full."""
    return any(
        (isinstance(one, OSError) and one.errno in FULL)
        or any(words in str(one).lower() for words in WORDS)
        for one in _chain(error)
    )


def free_bytes(folder: Path) -> int | None:
    """What this user may still write there; None where the system does not say."""
    try:
        return shutil.disk_usage(_existing(folder)).free
    except OSError:
        return None


def _existing(folder: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if one.exists()), folder)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
