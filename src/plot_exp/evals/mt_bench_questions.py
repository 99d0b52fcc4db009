"""MT-Bench's questions and reference answers, in FastChat's published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plot_exp.data.files import Row, rows
from plot_exp.errors import UserError

# Zheng et al. 2023 (arXiv 2306.05685) and FastChat's llm_judge; every other category is greedy.
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
REFERENCED = ("math", "reasoning", "coding")
TURNS = 2


@dataclass(frozen=True)
class Question:
    """Two turns of a user.

    Attributes:
        reference: an answer to each turn, or None where the judge sees none.
    """

    id: int
    category: str
    turns: tuple[str, str]
    reference: tuple[str, str] | None = None

    @property
    def temperature(self) -> float:
        """At which the question is answered."""
        return TEMPERATURES.get(self.category, 0.0)


def read_questions(questions: Path, references: Path) -> list[Question]:
    """The questions in the order of the file, with the reference answers that the judge needs.

    The `reference` that some questions carry themselves is not what the published judge sees.

    Raises:
        UserError: a file cannot be read, a field is absent, a question stands twice, or a question
            of math, reasoning or coding has no reference answer.
    """
    answers = _references(references)
    found: dict[int, Question] = {}
    for row in rows(questions):
        question = _question(row, answers)
        if question.id in found:
            raise UserError(f"{row} repeats question {question.id}; each stands once.")
        if question.category in REFERENCED and question.reference is None:
            raise UserError(
                f"{references} has no answer to question {question.id} ({question.category}); the "
                "judge needs one for math, reasoning and coding."
            )
        found[question.id] = question
    return list(found.values())


def _question(row: Row, answers: Mapping[int, tuple[str, str]]) -> Question:
    number, category = _id(row), row.values.get("category")
    if not isinstance(category, str) or not category:
        raise UserError(f"{row} has no text under `category`; expected MT-Bench's fields.")
    turns = _turns(row.values.get("turns"), row)
    reference = answers.get(number) if category in REFERENCED else None
    return Question(number, category, turns, reference)


def _references(path: Path) -> dict[int, tuple[str, str]]:
    found = {}
    for row in rows(path):
        choices = row.values.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            raise UserError(f"{row} has no answer under `choices`; expected FastChat's fields.")
        found[_id(row)] = _turns(choices[0].get("turns"), row)
    return found


def _id(row: Row) -> int:
    number: Any = row.values.get("question_id")
    if isinstance(number, bool) or not isinstance(number, int):
        raise UserError(f"{row} has no whole number under `question_id`.")
    return number


def _turns(value: Any, row: Row) -> tuple[str, str]:
    if not (
        isinstance(value, list)
        and len(value) == TURNS
        and all(isinstance(turn, str) for turn in value)
    ):
        raise UserError(f"{row} does not hold two texts under `turns`.")
    return value[0], value[1]
