"""Whether a final answer is right: numbers as in GSM8K, expressions as in MATH."""

from __future__ import annotations

import re

from plot_exp.judges.equivalence import SECONDS, check

# A comma between thousands, as in text or as LaTeX sets it: `,`, `{,}`, `,\!`.
_COMMA = r"(?:\{,\}|,(?:\\!)?)"
# A sign counts only where it does not join two operands, as in `12-5`.
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]}%])[-+\u2212])?(?:\\?[$€£](?P<inner>[-\u2212])?)?(?P<digits>"
    rf"[0-9]{{1,3}}(?:{_COMMA}[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
)
_STRICT = re.compile(r"####[^\S\n]*(.*)")
# A number in another base, such as 2516_8.
_NUMERAL = re.compile(r"([0-9A-Z]+)_\{?([0-9]+)\}?")
# The power of a unit at the end, as in 15\mbox{ cm}^2.
_UNIT_POWER = re.compile(r"\\(?:text|mbox|mathrm|textrm)\{[^{}]*\}\s*\^\{?([0-9])\}?$")
_BOXES = re.compile(r"\\(?:boxed|fbox)\s*(\{|[^\s{])")


def normalise_number(text: str) -> str | None:
    """The plain form of a number: no commas, currency, plus sign, needless zeros or final point.

    Returns:
        Such as `-1200.5`, or None where the whole text is not one number.
    """
    match = _NUMBER.fullmatch(text.strip().rstrip(".").strip())
    return _plain(match) if match else None


def extract_strict(text: str) -> str | None:
    """The number directly behind the first `####` that has one, in plain form, or None.

    A mark before a word is a heading, and is passed over, as the published graders do.
    """
    for line in _STRICT.finditer(text):
        if match := _NUMBER.match(line[1].strip()):
            return _plain(match)
    return None


def extract_flexible(text: str) -> str | None:
    """The last number in the text, in plain form, or None."""
    numbers = list(_NUMBER.finditer(text))
    return _plain(numbers[-1]) if numbers else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced `\boxed{}` (or `\fbox{}`), or None.

    `\boxed 5`, without braces, holds one character. A box that never closes is passed over.
    """
    for match in reversed(list(_BOXES.finditer(text))):
        if match[1] != "{":
            return match[1]
        if (end := closing_brace(text, match.start(1))) is not None:
            return text[match.end() : end].strip()
    return None


def closing_brace(text: str, start: int) -> int | None:
    r"""The index of the brace that closes the one at `start`; `\{` and `\}` do not count."""
    depth = 0
    index = start
    while index < len(text):
        if text[index] == "\\":
            index += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
        index += 1
    return None


def grade(dataset: str, text: str, answer: str) -> bool:
    r"""Whether the text ends in the right answer.

    `math`, and any answer that is not a plain number, compares the last box by `math-verify`;
    everything else compares the last number in the text.

    Args:
        dataset: the name of the dataset that the answer comes from.
        text: a whole response.
        answer: the gold final answer, without its box.
    """
    number = normalise_number(answer)
    if dataset == "math" or number is None:
        boxed = last_boxed(text)
        return boxed is not None and equivalent(boxed, answer)
    return extract_flexible(text) == number


def equivalent(candidate: str, gold: str) -> bool:
    """Whether two LaTeX expressions say the same; see `compare`."""
    return compare(candidate, gold) is True


def compare(candidate: str, gold: str, seconds: float = SECONDS) -> bool | None:
    """Whether two LaTeX expressions say the same: as text, or else by `math-verify`.

    Returns:
        None where `math-verify` did not come to an end within `seconds`.
    """
    bare, bare_gold = _bare(candidate), _bare(gold)
    if bare == bare_gold:
        return True
    numbers = normalise_number(bare), normalise_number(bare_gold)
    if numbers[0] is not None and numbers[1] is not None:  # math-verify rounds to six places
        return numbers[0] == numbers[1]
    numerals = _NUMERAL.fullmatch(bare), _NUMERAL.fullmatch(bare_gold)
    if numerals[0] and numerals[1]:  # math-verify does not look at the base
        return numerals[0].groups() == numerals[1].groups()
    powers = _UNIT_POWER.search(candidate.strip()), _UNIT_POWER.search(gold.strip())
    if powers[0] and powers[1] and powers[0][1] != powers[1][1]:  # nor at the power of a unit
        return False
    return check(_without_percent(gold), _without_percent(candidate), seconds)


def _plain(match: re.Match[str]) -> str:
    whole, _, part = re.sub(_COMMA, "", match["digits"]).partition(".")
    digits = whole.lstrip("0") or "0"
    if part := part.rstrip("0"):
        digits = f"{digits}.{part}"
    negative = (match["sign"] or "+") != "+" or match["inner"] is not None
    return f"-{digits}" if negative and digits != "0" else digits


def _bare(text: str) -> str:
    """The expression without what only changes its look."""
    text = re.sub(r"\\(?:left|right|[,;:!]|displaystyle)(?![A-Za-z])|\\ |~", " ", text)
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)  # but 1 2 is not 12
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text).strip("$").rstrip(".")
    return _without_percent(text)


def _without_percent(text: str) -> str:
    """MATH's golds write percentages with and without the sign; graders do not look at it."""
    return re.sub(r"\s*\\?%\s*$", "", text)
