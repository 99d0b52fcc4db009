"""Grades of single answers from 1 to 10: MT-Bench's judge prompts, and reading what comes back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plot_exp.data.examples import Message
from plot_exp.data.files import rows
from plot_exp.errors import UserError

LEAST, MOST = 1.0, 10.0
NO_GRADE = "no grade"
OUT_OF_RANGE = "grade out of range"

# The published rule: the first number in double brackets, or else the first in single ones.
_DOUBLE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_SINGLE = re.compile(r"\[(\d+\.?\d*)\]")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")

# By whether a reference answer is shown and whether the second turn is graded.
_NAMES = {
    (False, 1): "single-v1",
    (True, 1): "single-math-v1",
    (False, 2): "single-v1-multi-turn",
    (True, 2): "single-math-v1-multi-turn",
}


@dataclass(frozen=True)
class Grade:
    """What a judge's text says.

    Attributes:
        value: from 1 to 10, or None where it cannot be read.
        why: the reason for None.
        several: whether the text holds grades that differ; the first is taken, as published.
    """

    value: float | None
    why: str | None = None
    several: bool = False


@dataclass(frozen=True)
class JudgePrompt:
    """A system turn, and a user turn with named places in braces."""

    name: str
    system: str
    template: str

    def messages(self, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """The dialogue for the judge; braces inside the fields stay as they are.

        Raises:
            UserError: the template names a field that is not there.
        """

        def fill(match: re.Match[str]) -> str:
            if match[1] not in fields:
                raise UserError(
                    f"the judge prompt {self.name} asks for {{{match[1]}}}; known are "
                    f"{', '.join(sorted(fields))}."
                )
            return fields[match[1]]

        return Message("system", self.system), Message(
            "user", _PLACEHOLDER.sub(fill, self.template)
        )


class SingleAnswerPrompts:
    """The judge prompts for grading one answer, from FastChat's `judge_prompts.jsonl`.

    Raises:
        UserError: the file cannot be read or lacks one of the four.
    """

    def __init__(self, path: Path) -> None:
        known = {}
        for row in rows(path):
            texts = [row.values.get(key) for key in ("name", "system_prompt", "prompt_template")]
            if not all(isinstance(text, str) for text in texts):
                raise UserError(f"{row} lacks name, system_prompt or prompt_template.")
            known[str(texts[0])] = JudgePrompt(*map(str, texts))
        absent = [name for name in _NAMES.values() if name not in known]
        if absent:
            raise UserError(f"{path} holds no judge prompt {absent[0]}; expected MT-Bench's file.")
        self._prompts = {key: known[name] for key, name in _NAMES.items()}

    def plain(self) -> list[str]:
        """The texts of the prompts, which decide the grades."""
        return [text for one in self._prompts.values() for text in (one.system, one.template)]

    def messages(
        self, turns: Sequence[str], answers: Sequence[str], reference: Sequence[str] | None
    ) -> tuple[Message, ...]:
        """What the judge is asked about the last of `answers`.

        Args:
            turns: the user's, at least as many as there are answers.
            answers: one, for the first turn to be graded, or two, for the second.
            reference: an answer to each turn, where the judge is shown one.
        """
        fields = {"question": turns[0], "answer": answers[0]}
        for place, answer in enumerate(answers, 1):
            fields |= {f"question_{place}": turns[place - 1], f"answer_{place}": answer}
        for place, answer in enumerate(reference or (), 1):
            fields[f"ref_answer_{place}"] = answer
        return self._prompts[reference is not None, len(answers)].messages(fields)


def read_grade(text: str) -> Grade:
    """The grade in a judge's text: `[[7]]`, `[[7.5]]`, or else `[7]`.

    `[[7/10]]`, `[[seven]]`, a number outside 1 to 10 and no number at all cannot be read.
    """
    for pattern in (_DOUBLE, _SINGLE):
        if found := [float(number) for number in pattern.findall(text)]:
            several = len(set(found)) > 1
            if LEAST <= found[0] <= MOST:
                return Grade(found[0], several=several)
            return Grade(None, OUT_OF_RANGE, several)
    return Grade(None, NO_GRADE)
