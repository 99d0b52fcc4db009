"""AlpacaEval's files: outputs of a model, and annotations that compare them with a baseline's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plot_exp.data.files import Row, rows
from plot_exp.errors import UserError

DRAW = 1.5


@dataclass(frozen=True)
class Output:
    """A model's answer to one instruction.

    Attributes:
        dataset: the part of AlpacaEval that the instruction comes from, where it is told.
    """

    instruction: str
    output: str
    generator: str
    dataset: str = ""


@dataclass(frozen=True)
class Annotation:
    """Two answers to one instruction, and what the judge prefers.

    Attributes:
        baseline, model: the answers; `output_1` and `output_2` of the published files.
        preference: in [1, 2], 2 where the model's answer is surely better and 1.5 for a draw; None
            where the judge gave nothing that can be read.
        annotator: the judge.
    """

    instruction: str
    baseline: str
    model: str
    preference: float | None
    baseline_name: str
    model_name: str
    annotator: str
    dataset: str = ""

    @property
    def length_difference(self) -> int:
        """The baseline's characters less the model's."""
        return len(self.baseline) - len(self.model)


def read_outputs(path: Path) -> list[Output]:
    """The outputs of one model, in the order of the file.

    Raises:
        UserError: the file cannot be read, a field is absent, or an instruction stands twice.
    """
    found = [
        Output(
            _text(row, "instruction"),
            _text(row, "output"),
            str(row.values.get("generator") or path.stem),
            str(row.values.get("dataset") or ""),
        )
        for row in rows(path)
    ]
    _check_once([output.instruction for output in found], path)
    return found


def read_annotations(path: Path) -> list[Annotation]:
    """Published annotations of one model against one baseline, in the order of the file.

    A preference of 0 is the older mark of a draw.

    Raises:
        UserError: the file cannot be read, a field is absent, a preference lies outside [1, 2], an
            instruction stands twice, or several models or judges are mixed.
    """
    found = [
        Annotation(
            _text(row, "instruction"),
            _text(row, "output_1"),
            _text(row, "output_2"),
            _preference(row),
            _text(row, "generator_1"),
            _text(row, "generator_2"),
            str(row.values.get("annotator") or ""),
            str(row.values.get("dataset") or ""),
        )
        for row in rows(path)
    ]
    _check_once([annotation.instruction for annotation in found], path)
    for name in ("model_name", "baseline_name", "annotator"):
        _check_one(sorted({getattr(annotation, name) for annotation in found}), name, path)
    return found


def _text(row: Row, key: str) -> str:
    value = row.values.get(key)
    if not isinstance(value, str):
        raise UserError(f"{row} has no text under `{key}`; expected AlpacaEval's fields.")
    return value


def _preference(row: Row) -> float | None:
    value: Any = row.values.get("preference")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{row} has the preference {value!r}; expected a number in [1, 2] or null.")
    if value == 0:
        return DRAW
    if not 1 <= value <= 2:
        raise UserError(
            f"{row} has the preference {value}; expected a number in [1, 2], or 0 or 1.5 for a "
            "draw."
        )
    return float(value)


def _check_once(instructions: Sequence[str], path: Path) -> None:
    seen: dict[str, int] = {}
    for place, instruction in enumerate(instructions):
        if instruction in seen:
            raise UserError(
                f"{path} holds one instruction in rows {seen[instruction]} and {place}; each "
                "stands once in AlpacaEval, so keep one of them."
            )
        seen[instruction] = place


def _check_one(names: list[str], field: str, path: Path) -> None:
    if len(names) > 1:
        what = {"model_name": "generator_2", "baseline_name": "generator_1"}.get(field, field)
        raise UserError(
            f"{path} holds several values of `{what}` ({', '.join(names[:4])}); expected one model "
            "against one baseline by one judge: split the file."
        )
