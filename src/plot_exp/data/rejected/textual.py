r"""A wrong number from one place of a solution on, to the end, where there are no notes to work by.

The number is one of the final answer's own, so that the end follows from the changed place.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from plot_exp.data.rejected.numerals import NUMERAL, slips, value, write

# What stands before a number that a step has just arrived at.
_RESULT = re.compile(
    r"(?:=|\\Rightarrow|\\approx|\\boxed|\b(?:is|are|equals|gives?|get|have|makes?|total of|to))"
    r"(?:[\s$\\{(\[+-]|\\left|[dt]?frac|boxed|sqrt|text|[a-zA-Z]\s*=)*\Z"
)
_DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
# `\frac12` is one half, `x^23` a square and a 3.
_SINGLE_DIGITS = re.compile(r"\\[dt]?frac\s*([0-9])\s*([0-9])|\\[dt]?frac\s*([0-9])|[\^_]([0-9])")
_INDEX = re.compile(r"[\^_]\{?\Z")
_CONTEXT = 40


@dataclass(frozen=True)
class _Place:
    """A numeral in the solution."""

    start: int
    end: int
    numeral: str
    is_index: bool
    single_digit: bool


@dataclass(frozen=True)
class Rewritten:
    """A changed solution, and whether the reasoning before the final answer changed as well."""

    text: str
    reasoning_changed: bool


def rewritten(
    problem: str, solution: str, final: tuple[int, int], generator: random.Random
) -> Iterator[Rewritten]:
    """Versions of a solution with a number of its final answer replaced from some result on.

    Args:
        problem: the question.
        solution: the whole solution.
        final: where the final answer stands in it.
        generator: decides which number of the answer, and the wrong value.
    """
    places = _numerals(solution)
    in_answer = [place for place in places if final[0] <= place.start < final[1]]
    # Each number once, plain ones before exponents and subscripts.
    by_value = {(place.is_index, value(place.numeral)): place for place in reversed(in_answer)}
    order = sorted(by_value.items(), key=lambda item: (item[0][0], generator.random()))
    given = {value(match[0]) for match in NUMERAL.finditer(problem)}
    for (is_index, number), target in order:
        alike = [
            place
            for place in places
            if value(place.numeral) == number and (is_index or not place.is_index)
        ]
        earlier = [place for place in alike if place.end <= final[0]]
        start = _first_result(solution, earlier, number in given) or target
        for wrong in slips(number, target.numeral, generator):
            text = _replace(solution, [p for p in alike if p.start >= start.start], wrong)
            if text is not None:
                yield Rewritten(text, start is not target)


def _first_result(text: str, earlier: list[_Place], given: bool) -> _Place | None:
    """Where the number is arrived at: the last such place if the problem gives that number too."""
    results = [
        place
        for place in earlier
        if _RESULT.search(text[max(0, place.start - _CONTEXT) : place.start])
    ]
    if results:
        return results[-1] if given else results[0]
    return earlier[0] if earlier and not given else None


def _numerals(solution: str) -> list[_Place]:
    """All numerals outside drawings, with those digits apart that LaTeX takes singly."""
    drawings = [match.span() for match in _DRAWING.finditer(solution)]
    single = {
        match.start(group)
        for match in _SINGLE_DIGITS.finditer(solution)
        for group in range(1, 5)
        if match[group] is not None
    }
    places = []
    position = 0
    while match := NUMERAL.search(solution, position):
        start = match.start()
        # Within a run of digits a single one ends the numeral before or behind it.
        cut = next((index for index in range(start + 1, match.end()) if index in single), None)
        end = start + 1 if start in single else cut or match.end()
        position = end
        if any(first <= start < last for first, last in drawings):
            continue
        is_index = _INDEX.search(solution, max(0, start - 2), start) is not None
        places.append(_Place(start, end, solution[start:end], is_index, start in single))
    return places


def _replace(text: str, places: list[_Place], wrong: Fraction) -> str | None:
    for place in reversed(places):
        new = write(wrong, place.numeral)
        if new is None:
            return None
        if place.single_digit and len(new) > 1:
            new = f"{{{new}}}"
        text = text[: place.start] + new + text[place.end :]
    return text
