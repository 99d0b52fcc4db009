"""A slip in one calculator note, and every later note worked out again with the wrong number."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from fractions import Fraction

from plot_exp.data.rejected.calculator import NOTE, evaluate
from plot_exp.data.rejected.numerals import NUMERAL, places, replace_numerals, slips, value, write


class _UnwritableError(Exception):
    """A changed number does not fit where it has to stand."""


def slipped(problem: str, solution: str, generator: random.Random) -> Iterator[str]:
    """Versions of a solution with one wrong result whose consequences are carried through.

    Steps are tried in random order; results that also stand in the problem come last, because
    there a later mention may mean the given number.

    Args:
        problem: the question.
        solution: a solution with calculator notes; the versions have notes as well.
        generator: decides the order of steps and of wrong values.
    """
    given = {value(match[0]) for match in NUMERAL.finditer(problem)}
    steps = []
    for index, note in enumerate(NOTE.finditer(solution)):
        result = note[1].rpartition("=")[2].strip()
        if NUMERAL.fullmatch(result) and "=" in note[1]:
            steps.append((value(result) in given, generator.random(), index, result))
    for _, _, index, result in sorted(steps):
        for wrong in slips(value(result), result, generator):
            try:
                yield _carry(solution, index, wrong)
            except _UnwritableError:
                continue


def _carry(solution: str, step: int, wrong: Fraction) -> str:
    changed: dict[Fraction, Fraction] = {}
    pieces = []
    position = 0
    for index, note in enumerate(NOTE.finditer(solution)):
        pieces.append(_rewrite(solution[position : note.start()], changed))
        left, _, result = note[1].rpartition("=")
        if index == step:
            result = _settle(result, wrong, changed)
        elif index > step:
            left, result = _work_out(left, result, changed)
        pieces.append(f"<<{left}={result}>>" if "=" in note[1] else note[0])
        position = note.end()
    pieces.append(_rewrite(solution[position:], changed))
    return "".join(pieces)


def _work_out(left: str, result: str, changed: dict[Fraction, Fraction]) -> tuple[str, str]:
    """A later note with the changed numbers put in; learns its new result."""
    new_left = _rewrite(left, changed)
    if not NUMERAL.fullmatch(result.strip()):
        return new_left, result
    before, after = evaluate(left), evaluate(new_left)
    if new_left == left or before is None or after is None:
        # A number that is worked out afresh from unchanged ones keeps its value from here on.
        changed.pop(value(result.strip()), None)
        return new_left, result
    if before != value(result.strip()):
        # The solution rounded here, so the changed one rounds alike.
        unit = 10 ** places(result.strip())
        after = Fraction(round(after * unit), unit)
    return new_left, _settle(result, after, changed)


def _settle(result: str, number: Fraction, changed: dict[Fraction, Fraction]) -> str:
    old = value(result.strip())
    if number == old:
        changed.pop(old, None)
        return result
    changed[old] = number
    return _written(number, result.strip())


def _rewrite(text: str, changed: dict[Fraction, Fraction]) -> str:
    def new(match: re.Match[str]) -> str:
        number = changed.get(value(match[0]))
        return match[0] if number is None else _written(number, match[0])

    return replace_numerals(text, new)


def _written(number: Fraction, like: str) -> str:
    text = write(number, like) if number > 0 else None
    if text is None:
        raise _UnwritableError
    return text
