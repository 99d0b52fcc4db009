"""Problems with a gold final answer, from the published files or the hub."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from plot_exp.config.dataset import DatasetConfig
from plot_exp.config.evals import GradedConfig
from plot_exp.data.files import Row
from plot_exp.data.sources import gsm8k, math
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError
from plot_exp.evals.base import CannotRunError
from plot_exp.evals.selection import spread
from plot_exp.judges.answers import extract_strict, last_boxed


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        answer: the gold final answer, in plain form (GSM8K) or as LaTeX (MATH).
        groups: what metrics are split by: a subject and a level.
        origin: file and row.
    """

    question: str
    solution: str
    answer: str
    origin: str
    groups: tuple[str, ...] = ()


@dataclass
class Problems:
    """What is asked, and what shots are drawn from.

    Attributes:
        test: the problems that are asked.
        train: the training split; empty where it is not at hand.
        notes: how many there are, and what was left out.
    """

    test: list[Problem]
    train: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def shots(self, count: int, seed: int) -> list[Problem]:
        """Solved training problems, the same for every problem.

        Raises:
            CannotRunError: there are not as many.
        """
        if count > len(self.train):
            raise CannotRunError(
                f"shots={count} are drawn from the training split, and {len(self.train)} of its "
                "problems are at hand; name a folder that holds it, or write shots=0"
            )
        return random.Random(f"shots/{seed}").sample(self.train, count)


def read_gsm8k(settings: GradedConfig) -> Problems:
    """GSM8K's test problems.

    Raises:
        UserError: `settings.path` cannot be used.
        CannotRunError: there is no path, no published folder and no hub.
    """
    config = DatasetConfig(name="gsm8k", path=settings.path, hub_name=settings.hub_name)
    return _read("gsm8k", settings, lambda: gsm8k.row_groups(config), _gsm8k_problem)


def read_math(settings: GradedConfig, subset: str | None) -> Problems:
    """MATH's test problems, or those of its selection of 500.

    Args:
        subset: one subject, or None for all.

    Raises:
        UserError, CannotRunError: see `read_gsm8k`.
    """
    config = DatasetConfig(
        name="math", path=settings.path, hub_name=settings.hub_name, subset=subset
    )
    found = _read("math", settings, lambda: math.row_groups(config), _math_problem, subset)
    if not found.test:
        raise UserError(f"eval.math.subset={subset}: none of the problems has this subject")
    return found


def _read(
    name: str,
    settings: GradedConfig,
    row_groups: Callable[[], Iterable[tuple[str, Iterable[Row]]]],
    problem_of: Callable[[Row], Problem | str],
    subset: str | None = None,
) -> Problems:
    tally = Tally(name)
    groups: dict[str, list[Problem]] = {}
    try:
        for split, rows in row_groups():
            for row in rows:
                found = problem_of(row)
                if isinstance(found, str):
                    tally.drop(f"{split}: {found}", row.origin)
                elif subset is None or subset in found.groups:
                    groups.setdefault(split, []).append(found)
    except UserError as error:
        sentence = str(error).replace("dataset.", f"eval.{name}.")
        if settings.path is None:
            raise CannotRunError(sentence) from error
        raise UserError(sentence) from error
    there = groups.get("validation") or groups.get("all") or []
    test = spread(
        there, lambda one: one.groups[0] if one.groups else "", settings.limit, settings.seed
    )
    notes = [f"{len(test)} of {len(there)} problems."]
    notes += [f"{count} left out: {reason}." for reason, count in tally.dropped.items()]
    return Problems(test, groups.get("train", []), notes)


def _text(row: Row, key: str, name: str) -> str:
    value = row.values.get(key)
    if not isinstance(value, str):
        raise UserError(
            f"{row} has no text under `{key}` (its keys: {', '.join(row.values)}); this is no "
            f"row of {name}"
        )
    return value.strip()


def _gsm8k_problem(row: Row) -> Problem | str:
    solution = _text(row, "answer", "GSM8K")
    answer = extract_strict(solution)
    if answer is None:
        return gsm8k.NO_ANSWER
    return Problem(_text(row, "question", "GSM8K"), solution, answer, str(row.origin))


def _math_problem(row: Row) -> Problem | str:
    solution = _text(row, "solution", "MATH")
    answer = row.values.get("answer")
    if not isinstance(answer, str) or not answer.strip():
        answer = last_boxed(solution)
    if not answer:
        return math.NO_BOX
    groups = (math.subject_of(row), _level(row.values.get("level")))
    question = _text(row, "problem", "MATH")
    return Problem(question, solution, answer.strip(), str(row.origin), groups)


def _level(value: object) -> str:
    """`level_3` of "Level 3" or 3; some rows hold "Level ?"."""
    found = re.search(r"[0-9]+", str(value))
    return f"level_{found[0]}" if found else "level_unknown"
