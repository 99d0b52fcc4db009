"""Numbers as they are written: finding them, plausible wrong ones, and writing those alike."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction

NUMERAL = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+")

MAX_PLACES = 2


def value(numeral: str) -> Fraction:
    """The number that a numeral, with or without thousands commas, stands for."""
    return Fraction(numeral.replace(",", ""))


def places(numeral: str) -> int:
    """Digits behind the point."""
    return len(numeral.partition(".")[2])


def write(number: Fraction, like: str) -> str | None:
    """Writes a number in the style of another numeral: commas, leading zero, places.

    Returns:
        None where the number is negative or needs more places than the model numeral has and than
        `MAX_PLACES`.
    """
    if number < 0:
        return None
    digits = next(
        (count for count in range(7) if (number * 10**count).denominator == 1), MAX_PLACES + 99
    )
    if digits > max(places(like), MAX_PLACES):
        return None
    # 0.50 keeps its places; 0.5 + 0.25 may need one more.
    shown = max(digits, places(like) if digits or like.endswith("0") else 0)
    whole, rest = divmod(int(number * 10**shown), 10**shown)
    comma = "," in like or (whole >= 10**4 and re.fullmatch(r"[0-9]{1,3}", like) is None)
    text = f"{whole:,}" if comma and "," in like else str(whole)
    if shown:
        text = f"{'' if like.startswith('.') and not whole else text}.{rest:0{shown}d}"
    return text


def slips(number: Fraction, numeral: str, generator: random.Random) -> Iterator[Fraction]:
    """Wrong values near a number, as round as it is, in a random order, none of them zero.

    900 becomes 800 or 1100, 24 becomes 23 or 27, 0.2 becomes 0.3.
    """
    unit = Fraction(1, 10 ** places(numeral))
    while number and (number / (unit * 10)).denominator == 1 and number / unit >= 20:
        unit *= 10
    nearby = [unit * step for step in (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)]
    generator.shuffle(nearby)
    # Halves and doubles keep a chain of divisions in whole numbers.
    for candidate in [number + step for step in nearby] + [number * 2, number / 2, number * 3]:
        if candidate > 0 and candidate != number:
            yield candidate


def replace_numerals(text: str, change: Callable[[re.Match[str]], str]) -> str:
    """The text with every numeral replaced."""
    return NUMERAL.sub(change, text)
