"""What no setting may hold: secrets, and names that would leave their folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from plot_exp.redaction import holds_secret, redact

# File systems take 255 bytes for a name; a sweep adds a size, and a temporary file a suffix.
LONGEST_NAME = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# A folder that is copied to another system must not turn into another one there.
_WINDOWS = re.compile(r"\\|^[A-Za-z]:")


def unsafe_name(name: str) -> str | None:
    """Why `name`, which may lead through folders, cannot name a folder below another one."""
    parts = name.split("/")
    if not name or "" in parts:
        return "a part of it is empty, or it begins at the root"
    if {".", ".."} & {part.strip() for part in parts}:
        return "it leads out of the folder"
    if _CONTROL.search(name):
        return "it holds a control character"
    if _WINDOWS.search(name):
        return "it holds a backslash or a drive"
    if max(len(part.encode("utf-8", "replace")) for part in parts) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return None


def secrets_and_controls(plain: dict[str, Any]) -> Iterator[str]:
    """A sentence for each setting that holds what looks like a secret, or a NUL."""
    whole = json.dumps(plain, ensure_ascii=False)
    if not holds_secret(whole) and "\\u0000" not in whole:
        return
    for key, value in _texts(plain, ""):
        if "\0" in value:
            yield f"{key}: holds a NUL character, which no file name or text takes"
        elif holds_secret(value):
            yield (
                f"{key}={redact(value)}: this looks like a key or a password, and settings are "
                "written to files and to W&B; put it into a variable of the environment"
            )


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, key)
