"""Files are written whole or not at all: a temporary file beside the target, then one rename."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from plot_exp.disk import full_disk, is_full
from plot_exp.errors import PausedError, RunError, UserError


def prepare_folder(path: Path) -> None:
    """Makes `path` and proves that it can be written, before any work is done.

    Raises:
        UserError: the folder cannot be made or written.
    """
    probe = path / f".write-test-{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise UserError(
            f"{path}: this folder cannot be written ({reason(error)}); name another one or free it."
        ) from error


def prepare_cache(path: Path) -> None:
    """Makes the cache folder; one that exists may be read-only, if it holds what is needed.

    Raises:
        UserError: there is no such folder and it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache_dir={path}: this folder cannot be made ({reason(error)}); name another one."
        ) from error


def make_readable(folder: Path) -> None:
    """Gives a folder that was made as a private one, and its files, the usual permissions."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files and folders that a killed process left in a folder of its own."""
    for path in folder.glob(".*.part"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, which takes its place on a clean exit.

    The bytes reach the disk before the rename. On any exception the temporary file is removed and
    `path` stays as it was.

    Raises:
        RunError: the disk cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # Some writers make private files; others who share the folder are to read them.
        temporary.chmod(temporary.stat().st_mode | 0o444 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 with `\\n` line ends; lone surrogates become `?`.

    Raises:
        RunError: the disk cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))


def write_json(path: Path, obj: Any) -> None:
    """Writes `obj` as indented JSON; NaN and infinities, which JSON lacks, become null.

    Raises:
        RunError: the disk cannot be written.
    """
    text = json.dumps(_finite(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def unwritable(path: Path, error: OSError) -> RunError:
    """The sentence for a file that could not be written during a run."""
    if is_full(error):
        return PausedError(full_disk(path, reason=reason(error)))
    return RunError(
        f"{path} could not be written ({reason(error)}); what was there before is untouched."
    )


def reason(error: OSError) -> str:
    """What the system says, in words and without the path."""
    return error.strerror or str(error) or type(error).__name__


def _finite(obj: Any) -> Any:
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    if isinstance(obj, Mapping):
        return {str(key): _finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_finite(value) for value in obj]
    return obj
