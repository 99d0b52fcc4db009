r"""A wrong number from one place of a solution to its end, where no step can be worked out again.

The number is one of the final answer's own, so that the end follows from the changed place.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from plot_exp.data.rejected.numerals import NUMERAL, Place, edited, find, slips, value, write

# What stands before a number that a step has just arrived at.
_RESULT = re.compile(
    r"(?:=|\\Rightarrow|\\approx|\\boxed|\b(?:is|are|equals|gives?|get|have|makes?|total of|to))"
    r"(?:[\s$\\{(\[+-]|\\left|[dt]?frac|boxed|sqrt|text|[a-zA-Z]\s*=)*\Z"
)
_CONTEXT = 40


def rewritten(
    problem: str, solution: str, final: tuple[int, int], generator: random.Random
) -> Iterator[str]:
    """Versions of a solution with a number of its final answer replaced from some result on.

    Args:
        problem: the question.
        solution: the whole solution.
        final: where the final answer stands in it.
        generator: decides which number of the answer, and the wrong value.
    """
    places = find(solution)
    in_answer = [place for place in places if final[0] <= place.start < final[1]]
    # Each number once, plain ones before exponents and subscripts.
    distinct = {(place.is_index, place.value): place for place in reversed(in_answer)}
    order = sorted(distinct.items(), key=lambda item: (item[0][0], generator.random()))
    given = {value(match[0]) for match in NUMERAL.finditer(problem)}
    for (is_index, number), target in order:
        alike = [
            place for place in places if place.value == number and (is_index or not place.is_index)
        ]
        earlier = [place for place in alike if place.end <= final[0]]
        start = _arrival(solution, earlier, number in given) or target
        for wrong in slips(target.numeral, generator):
            edits = [
                (place.start, place.end, write(wrong, place))
                for place in alike
                if place.start >= start.start
            ]
            written = [(first, last, new) for first, last, new in edits if new is not None]
            if len(written) == len(edits):
                yield edited(solution, written)


def _arrival(text: str, earlier: list[Place], given: bool) -> Place | None:
    """Where the number is arrived at: the last such place if the problem gives that number too."""
    results = [
        place
        for place in earlier
        if _RESULT.search(text[max(0, place.start - _CONTEXT) : place.start])
    ]
    if results:
        return results[-1] if given else results[0]
    return earlier[0] if earlier and not given else None
