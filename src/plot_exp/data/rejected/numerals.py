"""Numbers as they are written: finding them, plausible wrong ones, and writing those alike."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

NUMERAL = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+")

MAX_PLACES = 2

_DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
# `\frac12` is one half, `x^23` a square and a 3.
_SINGLE_DIGITS = re.compile(r"\\[dt]?frac\s*([0-9])\s*([0-9])|\\[dt]?frac\s*([0-9])|[\^_]([0-9])")
_INDEX = re.compile(r"[\^_]\{?\Z")


@dataclass(frozen=True)
class Place:
    """A numeral in a text.

    Attributes:
        start: where it begins.
        end: where it ends.
        numeral: as it is written.
        is_index: it is an exponent or a subscript.
        single_digit: LaTeX takes one digit here, so that more need braces.
    """

    start: int
    end: int
    numeral: str
    is_index: bool
    single_digit: bool

    @property
    def value(self) -> Fraction:
        """The number it stands for."""
        return value(self.numeral)


def find(text: str) -> list[Place]:
    """All numerals outside `[asy]` drawings, digits apart that LaTeX takes singly."""
    drawings = [match.span() for match in _DRAWING.finditer(text)]
    single = {
        match.start(group)
        for match in _SINGLE_DIGITS.finditer(text)
        for group in range(1, 5)
        if match[group] is not None
    }
    places = []
    position = 0
    while match := NUMERAL.search(text, position):
        start = match.start()
        # Within a run of digits a single one ends the numeral before or behind it.
        cut = next((index for index in range(start + 1, match.end()) if index in single), None)
        end = start + 1 if start in single else cut or match.end()
        position = end
        if any(first <= start < last for first, last in drawings):
            continue
        is_index = _INDEX.search(text, max(0, start - 2), start) is not None
        places.append(Place(start, end, text[start:end], is_index, start in single))
    return places


def value(numeral: str) -> Fraction:
    """The number that a numeral, with or without thousands commas, stands for."""
    return Fraction(numeral.replace(",", ""))


def decimals(numeral: str) -> int:
    """Digits behind the point."""
    return len(numeral.partition(".")[2])


def write(number: Fraction, like: Place) -> str | None:
    """Writes a number in the style of a numeral: commas, zero before the point, decimals, braces.

    Returns:
        None where the number is not positive, or needs more decimals than the numeral has and
        than `MAX_PLACES`.
    """
    most = max(decimals(like.numeral), MAX_PLACES)
    needed = next((n for n in range(most + 1) if (number * 10**n).denominator == 1), None)
    if number <= 0 or needed is None:
        return None
    # 12.50 keeps its two decimals, 12 gets none unless it needs them.
    shown = max(needed, decimals(like.numeral) if like.numeral.endswith("0") else 0)
    whole, rest = divmod(int(number * 10**shown), 10**shown)
    text = f"{whole:,}" if "," in like.numeral else str(whole)
    if shown:
        text = f"{'' if like.numeral.startswith('.') and not whole else text}.{rest:0{shown}d}"
    return f"{{{text}}}" if like.single_digit and len(text) > 1 else text


def slips(numeral: str, generator: random.Random) -> Iterator[Fraction]:
    """Wrong values near a number, as round as it is, in a random order, none of them zero.

    900 becomes 800 or 1100, 24 becomes 23 or 27, 0.2 becomes 0.3.
    """
    number = value(numeral)
    unit = Fraction(1, 10 ** decimals(numeral))
    while number and (number / (unit * 10)).denominator == 1 and number / unit >= 20:
        unit *= 10
    nearby = [unit * step for step in (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)]
    generator.shuffle(nearby)
    # Halves and doubles keep a chain of divisions in whole numbers.
    for candidate in [number + step for step in nearby] + [number * 2, number / 2, number * 3]:
        if candidate > 0 and candidate != number:
            yield candidate


def edited(text: str, edits: list[tuple[int, int, str]], start: int = 0) -> str:
    """The text with spans replaced; `start` is where the text begins in the spans' own count."""
    pieces = []
    position = 0
    for first, last, new in edits:
        pieces += [text[position : first - start], new]
        position = last - start
    return "".join([*pieces, text[position:]])
