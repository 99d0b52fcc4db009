"""MT-Bench's numbers from grades: overall, by category and by turn, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plot_exp.evals.intervals import RESAMPLES, summarise
from plot_exp.evals.length_gap import length_gap
from plot_exp.judges.mt_bench import Grade


@dataclass(frozen=True)
class Graded:
    """One turn's answer and its grade."""

    question: int
    category: str
    turn: int
    answer: str
    grade: Grade


def scores(graded: Sequence[Graded]) -> dict[str, float]:
    """Mean grades by key, without a prefix; a key without a readable grade is absent.

    `score` is over all readable grades; `turn_1` and `turn_2`, each category, and each category's
    turns likewise. The two turns of a question go together in an interval's draws.
    """
    groups: dict[str, list[Graded]] = {"score": list(graded)}
    for one in graded:
        for key in (f"turn_{one.turn}", one.category, f"{one.category}/turn_{one.turn}"):
            groups.setdefault(key, []).append(one)
    found: dict[str, float] = {}
    for key, members in groups.items():
        found |= _mean(key, members)
    found["unreadable"] = float(sum(one.grade.value is None for one in graded))
    found["several_grades"] = float(sum(one.grade.several for one in graded))
    if graded:
        found["length"] = float(np.mean([len(one.answer) for one in graded]))
    return found


def unreadable_notes(graded: Sequence[Graded]) -> list[str]:
    """How many grades could not be read, by reason; nothing where all could."""
    reasons: dict[str, int] = {}
    for one in graded:
        if one.grade.value is None:
            reasons[one.grade.why or "unreadable"] = reasons.get(one.grade.why or "", 0) + 1
    if not reasons:
        return []
    listed = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    total = sum(reasons.values())
    return [f"{total} of {len(graded)} grades could not be read ({listed}); they enter no mean."]


def against_start(
    after: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The grades of a model and of its start, turn by turn: wins, and how much is length.

    Keys are `win_rate` (ties ½) and those of `length_gap`; turns without two grades are left out.

    Args:
        after, before: the samples of both.
    """
    earlier = {(row["question"], row["turn"]): row for row in before}
    compared = [
        (row["grade"] - other["grade"], len(row["response"]), len(other["response"]))
        for row in after
        if (other := earlier.get((row["question"], row["turn"]))) is not None
        and row["grade"] is not None
        and other["grade"] is not None
    ]
    if not compared:
        return {}
    margins, own, other_lengths = (list(column) for column in zip(*compared, strict=True))
    wins = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    split = length_gap(margins, wins, own, other_lengths)
    return summarise("win_rate", wins, rate=True) | split


def _mean(key: str, members: Sequence[Graded]) -> dict[str, float]:
    by_question: dict[int, list[float]] = {}
    for one in members:
        if one.grade.value is not None:
            by_question.setdefault(one.question, []).append(one.grade.value)
    if not by_question:
        return {}
    sums = np.array([sum(values) for values in by_question.values()])
    counts = np.array([len(values) for values in by_question.values()])
    mean = {key: float(sums.sum() / counts.sum()), f"{key}/count": float(counts.sum())}
    if len(sums) < 2:  # of one question every draw is the same, which would look certain
        return mean
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return mean | {f"{key}/low": float(low), f"{key}/high": float(high)}
