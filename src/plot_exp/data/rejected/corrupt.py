"""Rejected solutions made from gold ones: one wrong number, carried through to a wrong answer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from plot_exp.data.examples import Origin, PreferenceExample
from plot_exp.data.rejected import chain, textual
from plot_exp.data.rejected.calculator import without_notes
from plot_exp.data.rejected.numerals import NUMERAL
from plot_exp.data.tally import Tally
from plot_exp.judges.answers import grade, last_boxed

NO_ANSWER = "no final answer is known, so a corrupted response could not be graded"
GOLD_NOT_RIGHT = "the grader does not find the gold answer in the gold solution"
NO_NUMBER = "the final answer holds no number to change"
NOT_WRONG = "no changed number led to a wrong final answer"
ANSWER_ONLY = "the changed number stands in the final answer alone"

# Each candidate of a MATH solution costs a call of the equivalence checker.
MAX_CANDIDATES = 60


def corrupt_all(
    examples: Sequence[PreferenceExample],
    seed: int,
    tally: Tally,
    worked: Mapping[Origin, str],
) -> list[PreferenceExample]:
    """Pairs each gold solution with its corrupted version; the grader confirms right and wrong.

    The same seed and row give the same corruption.

    Args:
        examples: with one response and a known answer each.
        seed: decides the place and size of the slips.
        tally: receives, by reason, what could not be corrupted.
        worked: solutions with calculator notes, by origin, where responses have lost them.
    """
    pairs = []
    for example in examples:
        pair, reason = _pair(example, seed, worked.get(example.origin), tally)
        if pair is not None:
            pairs.append(pair)
        else:
            tally.drop(reason, example.origin)
    return pairs


def _pair(
    example: PreferenceExample, seed: int, worked: str | None, tally: Tally
) -> tuple[PreferenceExample | None, str]:
    gold, answer = example.responses[0], example.answer
    if answer is None:
        return None, NO_ANSWER
    if not grade(example.dataset, gold, answer):
        return None, GOLD_NOT_RIGHT
    solution = gold if worked is None else worked
    final = final_answer(solution)
    if final is None or not NUMERAL.search(solution, *final):
        return None, NO_NUMBER
    problem = example.prompt[-1].content
    generator = random.Random(f"{seed}\x1f{problem}\x1f{solution}")
    spared = []
    for candidate in itertools.islice(
        _candidates(problem, solution, final, generator), MAX_CANDIDATES
    ):
        if candidate[: final[0]] == solution[: final[0]]:
            spared.append(candidate)
        elif (pair := _confirmed(example, candidate, worked, answer)) is not None:
            return pair, ""
    for candidate in spared:
        if (pair := _confirmed(example, candidate, worked, answer)) is not None:
            tally.change(ANSWER_ONLY, example.origin)
            return pair, ""
    return None, NOT_WRONG


def _confirmed(
    example: PreferenceExample, candidate: str, worked: str | None, answer: str
) -> PreferenceExample | None:
    """The pair, if the grader finds the candidate wrong."""
    gold = example.responses[0]
    text = candidate if worked is None else without_notes(candidate)
    if text == gold or grade(example.dataset, text, answer):
        return None
    return replace(example, responses=(gold, text))


def _candidates(
    problem: str, solution: str, final: tuple[int, int], generator: random.Random
) -> Iterator[str]:
    yield from chain.slipped(problem, solution, generator)
    yield from textual.rewritten(problem, solution, final, generator)


def final_answer(solution: str) -> tuple[int, int] | None:
    r"""Where the final answer stands: behind `####`, in the last box, or as the last number."""
    marker = solution.find("####")
    if marker >= 0:
        return marker, len(solution)
    boxed = last_boxed(solution)
    if boxed is not None:
        start = solution.rfind(boxed)
        return start, start + len(boxed)
    numerals = list(NUMERAL.finditer(solution))
    return numerals[-1].span() if numerals else None
