"""Where a benchmark's published files lie, and what tells one set of them from another."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from plot_exp.data.layout import DATA_VARIABLE
from plot_exp.errors import UserError
from plot_exp.evals.base import CannotRunError


def find_folder(path: str | None, name: str, key: str, benchmark: str) -> Path:
    """The folder that was named, or the one under `PLOT_EXP_DATA`.

    Args:
        key: what the user calls `path`.

    Raises:
        UserError: the named folder does not exist.
        CannotRunError: none was named and none is there.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise UserError(f"{key}={path}: there is no such folder")
        return folder
    data = os.environ.get(DATA_VARIABLE)
    if data and (folder := Path(data).expanduser() / name).is_dir():
        return folder
    raise CannotRunError(
        f"{benchmark} needs its published files: name their folder with {key}=FOLDER, or put them "
        f"into {name}/ under {DATA_VARIABLE}"
    )


def digest(content: Any) -> str:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
