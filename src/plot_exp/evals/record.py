"""What was done so far, one JSON line each, so that hours of work go on where they stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plot_exp.errors import UserError
from plot_exp.files import unwritable


class Record:
    """Rows by key in an append-only file.

    A row counts when its whole line is there: the cut-off line of a killed process is taken away.

    Args:
        path: the file; made with the first row.

    Raises:
        UserError: a line in the middle is damaged.
        RunError: the disk cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._read()

    def __contains__(self, key: object) -> bool:
        return str(key) in self._rows

    def __getitem__(self, key: object) -> dict[str, Any]:
        return self._rows[str(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: object, row: Mapping[str, Any]) -> None:
        """Writes a row before this returns; a later row of the same key replaces it."""
        self._rows[str(key)] = dict(row)
        line = json.dumps({"key": str(key), **row}, ensure_ascii=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line.encode("utf-8", errors="replace") + b"\n")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole, _, rest = content.rpartition(b"\n")
        if rest:
            os.truncate(self.path, len(content) - len(rest))
        for number, line in enumerate(filter(None, whole.split(b"\n")), start=1):
            try:
                row = json.loads(line)
                self._rows[str(row.pop("key"))] = row
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise UserError(
                    f"{self.path}, line {number} is damaged; remove that line, and what it held "
                    "is done again"
                ) from error
