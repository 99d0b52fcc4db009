"""A slip in one step of a solution, and every later step worked out again with the wrong number."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

from plot_exp.data.rejected.calculator import evaluate
from plot_exp.data.rejected.numerals import (
    NUMERAL,
    Place,
    decimals,
    edited,
    find,
    slips,
    value,
    write,
)
from plot_exp.data.rejected.steps import steps


class _UnwritableError(Exception):
    """A changed number does not fit where it has to stand."""


def slipped(problem: str, solution: str, generator: random.Random) -> Iterator[str]:
    """Versions of a solution with one wrong result whose consequences are carried through.

    Steps are tried in random order; results that also stand in the problem come last, because
    there a later mention may mean the given number.

    Args:
        problem: the question.
        solution: a solution, with its calculator notes where it has them.
        generator: decides the order of steps and of wrong values.
    """
    places = [place for place in find(solution) if not place.is_index]
    known = steps(solution, places)
    given = {value(match[0]) for match in NUMERAL.finditer(problem)}
    candidates = [place for place in places if place.start in known]
    order = {place.start: (place.value in given, generator.random()) for place in candidates}
    for slip in sorted(candidates, key=lambda place: order[place.start]):
        for wrong in slips(slip.numeral, generator):
            try:
                yield _carry(solution, places, known, slip, wrong)
            except _UnwritableError:
                continue


def _carry(
    solution: str,
    places: list[Place],
    known: dict[int, tuple[int, int]],
    slip: Place,
    wrong: Fraction,
) -> str:
    """The solution with the slip, later steps recomputed and later mentions changed alike."""
    changed: dict[Fraction, Fraction] = {}
    edits: list[tuple[int, int, str]] = []
    for place in places:
        if place.start < slip.start:
            continue
        if place is slip:
            number = wrong
        elif place.start in known:
            number = _work_out(solution, known[place.start], place, edits, changed)
        else:
            number = changed.get(place.value, place.value)
        # A value that is worked out afresh, right or wrong, is what later mentions mean.
        if place is slip or place.start in known:
            changed[place.value] = number
        if number != place.value:
            written = write(number, place)
            if written is None:
                raise _UnwritableError
            edits.append((place.start, place.end, written))
    return edited(solution, edits)


def _work_out(
    solution: str,
    span: tuple[int, int],
    result: Place,
    edits: list[tuple[int, int, str]],
    changed: dict[Fraction, Fraction],
) -> Fraction:
    left = solution[slice(*span)]
    inside = [edit for edit in edits if span[0] <= edit[0] and edit[1] <= span[1]]
    if not inside:
        return result.value
    before, after = evaluate(left), evaluate(edited(left, inside, span[0]))
    if before is None or after is None:
        return changed.get(result.value, result.value)
    if before == result.value:
        return after
    # The solution rounded here, so the changed one rounds alike.
    unit = 10 ** decimals(result.numeral)
    return Fraction(round(after * unit), unit)
