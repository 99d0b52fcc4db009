"""What a length-controlled win rate takes from the published benchmark, as CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plot_exp.errors import UserError
from plot_exp.evals.length_control import Comparisons, Weights, gamed
from plot_exp.reading import read_text

# The judge and the baseline that the published weights belong to.
PUBLISHED_ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
PUBLISHED_BASELINE = "gpt4_1106_preview"

_LENGTH, _DIFFICULTY, _MODEL = (
    "np.tanh(std_delta_len)",
    "instruction_difficulty",
    "not_gamed_baseline.astype(float)",
)


@dataclass(frozen=True)
class Tables:
    """The published parts of the logistic model; each may be absent.

    Attributes:
        difficulty: of an instruction, by its text.
        weights: of a model, by its name.
        gamed: the rows of the baseline's lengthened and shortened variants.
    """

    difficulty: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    gamed: Comparisons | None = None


def read_tables(
    *,
    difficulty: Path | None = None,
    weights: Path | None = None,
    gamed_rows: Path | None = None,
    instructions: Sequence[str] = (),
) -> Tables:
    """Reads those tables that are there.

    Args:
        instructions: in the benchmark's own order, for a table of difficulties by number alone.

    Raises:
        UserError: a table cannot be read, lacks a column, or holds what is no number.
    """
    return Tables(
        read_difficulty(difficulty, instructions) if difficulty else {},
        read_weights(weights) if weights else {},
        read_gamed(gamed_rows) if gamed_rows else None,
    )


def read_difficulty(path: Path, instructions: Sequence[str] = ()) -> dict[str, float]:
    """The difficulty of each instruction, by its text, or by its number in `instructions`.

    Raises:
        UserError: see `read_tables`; or an instruction's number is beyond `instructions`.
    """
    found: dict[str, float] = {}
    for row, values in _rows(path, ["instruction_difficulty"]):
        text = values.get("instruction")
        if text is None:
            text = _by_number(path, row, values, instructions)
        found[text] = _number(path, row, values, "instruction_difficulty")
    return found


def read_weights(path: Path) -> dict[str, Weights]:
    """The published weights of each model.

    Raises:
        UserError: see `read_tables`.
    """
    columns = (_LENGTH, _DIFFICULTY, _MODEL)
    return {
        _name(values): Weights(*(_number(path, row, values, column) for column in columns))
        for row, values in _rows(path, columns)
    }


def read_gamed(path: Path) -> Comparisons:
    """The published rows of the baseline's lengthened and shortened variants.

    Raises:
        UserError: see `read_tables`.
    """
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    table = [
        [_number(path, row, values, column) for column in columns]
        for row, values in _rows(path, columns)
    ]
    preference, length, difficulty = np.array(table).T
    if not ((preference >= 0) & (preference <= 1)).all():
        raise UserError(f"{path}: a `preference` lies outside [0, 1]; expected the file df_gamed.")
    return gamed(preference, np.tanh(length), difficulty)


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    absent = [column for column in columns if column not in (reader.fieldnames or [])]
    if absent:
        raise UserError(
            f"{path} has no column `{absent[0]}`; it has {', '.join(reader.fieldnames or ['none'])}"
        )
    try:
        found = list(enumerate(reader))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} is no valid CSV: {error}.") from error
    if not found:
        raise UserError(f"{path} holds no rows; expected at least one.")
    return found


def _name(values: dict[str, str]) -> str:
    """The first column, which the published table leaves without a name."""
    return next(iter(values.values()))


def _number(path: Path, row: int, values: dict[str, str], column: str) -> float:
    try:
        value = float(values[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}, row {row} has {values[column]!r} under `{column}`, no number.")
    return value


def _by_number(path: Path, row: int, values: dict[str, str], instructions: Sequence[str]) -> str:
    number = int(_number(path, row, {"index": _name(values)}, "index"))
    if not 0 <= number < len(instructions):
        raise UserError(
            f"{path}, row {row} names instruction {number} without its text, and only "
            f"{len(instructions)} are known; give a table with a column `instruction`."
        )
    return instructions[number]
