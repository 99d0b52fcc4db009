"""The known name closest to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most like `word`, or None where none is alike.

    Letters that changed places come first: `dop` is `dpo` before it is `dpop`.
    """
    lowered = {name.lower(): name for name in names}
    for name in lowered:
        if name != word.lower() and sorted(name) == sorted(word.lower()):
            return lowered[name]
    matches = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[matches[0]] if matches else None


def known(word: str, names: Iterable[str]) -> str:
    """`did you mean 'dpo'? (dpo, plot, sft)`, or the names alone where none is alike."""
    candidates = sorted(names)
    guess = nearest(word, candidates)
    listed = ", ".join(candidates)
    return f"did you mean {guess!r}? (known: {listed})" if guess else f"known: {listed}"
