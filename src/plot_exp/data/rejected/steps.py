"""The steps of a solution that can be worked out again: arithmetic on numbers, `=`, a number."""

from __future__ import annotations

import re
from fractions import Fraction

from plot_exp.data.rejected.calculator import evaluate
from plot_exp.data.rejected.numerals import Place, decimals

_EQUALS = re.compile(r"\s*=\s*(?:&\s*)?(?:\\?\$|\\boxed\s*\{|\{)*\Z")
_MORE = re.compile(r"[A-Za-z^{]|\s*(?:[-+*/×÷(]\s*[0-9(\\]|\\(?:times|cdot|div|[dt]?frac|sqrt|pi))")
_ARITHMETIC = re.compile(
    r"(?:\\(?:times|cdot|div|left|right|[dt]?frac|[,!;])|[0-9.,+\-–−*/×x÷(){}%$&\s])+\Z"
)
_BEFORE = 120


def steps(text: str, places: list[Place]) -> dict[int, tuple[int, int]]:
    """Where each result begins, and the span of the arithmetic that gives it.

    Only equations that hold, exactly or to rounding of the result, are steps. Calculator notes
    are equations like any other.
    """
    found = {}
    for place in places:
        before = text[max(0, place.start - _BEFORE) : place.start]
        equals = _EQUALS.search(before)
        if equals is None or place.is_index or _MORE.match(text, place.end):
            continue
        left = before[: equals.start()]
        start = _start_of_arithmetic(left, place)
        if start is not None:
            offset = place.start - len(before)
            found[place.start] = (offset + start, offset + len(left))
    return found


def _start_of_arithmetic(left: str, result: Place) -> int | None:
    """The first place from which the rest of `left` is arithmetic with that result."""
    tail = _ARITHMETIC.search(left)
    if tail is None:
        return None
    for start in range(tail.start(), len(left)):
        begins = left[start] in "0123456789.(-\\" and left[start - 1 : start] not in tuple(
            "0123456789.,"
        )
        if not begins or not any(character.isdigit() for character in left[start:]):
            continue
        number = evaluate(left[start:])
        if number is not None and rounds_to(number, result):
            return start
    return None


def rounds_to(number: Fraction, result: Place) -> bool:
    """Whether the result is the number, or the number rounded or cut to the result's decimals."""
    return number == result.value or (
        decimals(result.numeral) > 0
        and abs(number - result.value) < Fraction(1, 10 ** decimals(result.numeral))
    )
