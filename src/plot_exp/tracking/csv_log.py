"""`metrics.csv`: one row a step, readable after a kill at any moment."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from plot_exp.files import unwritable, write_text

logger = logging.getLogger(__name__)


class CsvLog:
    """A wide table: `step` first, then one column a metric; an empty field was not measured.

    A new step is appended as one line. A new column, or a value for a step that has its row
    already, rewrites the file whole.

    Args:
        path: the file.
        resume_step: the last step that stands; later rows, and a line torn by a kill, are removed.
            None begins afresh.

    Raises:
        RunError: the disk cannot be written.
    """

    def __init__(self, path: Path, *, resume_step: int | None = None) -> None:
        self.path = path
        self._columns: list[str] = ["step"]
        self._rows: dict[int, dict[str, str]] = {}
        if resume_step is None:
            path.unlink(missing_ok=True)
        elif path.exists():
            self._read(resume_step)
            self._rewrite()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds values to the row of `step`; a value given twice for a step is the last one."""
        values = {name: _number(value) for name, value in metrics.items() if name != "step"}
        new_columns = [name for name in values if name not in self._columns]
        last = next(reversed(self._rows), -1)
        self._columns += new_columns
        if new_columns or step <= last:
            self._rows.setdefault(step, {}).update(values)
            self._rows = dict(sorted(self._rows.items()))
            self._rewrite()
        else:
            self._rows[step] = values
            self._append(step)

    def rows(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Every step with what was measured in it, in order."""
        for step, row in self._rows.items():
            yield step, {name: float(value) for name, value in row.items()}

    def _append(self, step: int) -> None:
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                whole = file.tell()
                file.write(self._lines([self._fields(step)]))
        except OSError as error:
            # A full disk may have taken the beginning of the line.
            with suppress(OSError):
                os.truncate(self.path, whole)
            raise unwritable(self.path, error) from error

    def _rewrite(self) -> None:
        rows = [self._fields(step) for step in self._rows]
        write_text(self.path, self._lines([self._columns, *rows]))

    def _fields(self, step: int) -> list[str]:
        row = self._rows[step]
        return [str(step), *(row.get(name, "") for name in self._columns[1:])]

    @staticmethod
    def _lines(rows: list[list[str]]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(rows)
        return buffer.getvalue()

    def _read(self, resume_step: int) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole, _, torn = text.rpartition("\n")
        lines = list(csv.reader(io.StringIO(whole)))
        if not lines or lines[0][:1] != ["step"]:
            if text:
                logger.warning("%s has no header of metrics and is begun afresh", self.path)
            return
        self._columns = lines[0]
        unreadable = int(bool(torn))
        for fields in lines[1:]:
            if len(fields) != len(self._columns) or not fields[0].isdigit():
                unreadable += 1
            elif int(fields[0]) <= resume_step:
                named = zip(self._columns[1:], fields[1:], strict=True)
                self._rows[int(fields[0])] = {name: value for name, value in named if value}
        if unreadable:
            logger.warning("%s: %d torn line(s) removed", self.path, unreadable)
        self._rows = dict(sorted(self._rows.items()))


def _number(value: float) -> str:
    """All digits, so that the file holds the measured value; a 0-d tensor counts as its item."""
    item = value.item() if hasattr(value, "item") else value
    return str(int(item)) if isinstance(item, bool | int) else repr(float(item))
