"""What tokenisation found, as arrays: small in memory, and ready for a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

KEPT, RESPONSE_TOO_LONG, PROMPT_EMPTY = range(3)


@dataclass(frozen=True)
class Encoded:
    """E examples as token ids.

    Attributes:
        outcome: uint8 [E], `KEPT` or why not.
        cut: bool [E], the oldest part of the prompt is gone.
        spelled: bool [E], some text spells a special token.
        tokens: int32, of every kept example the prompt and then its responses, one after another.
        ends: int64, where in `tokens` each of these sequences ends.
    """

    outcome: np.ndarray
    cut: np.ndarray
    spelled: np.ndarray
    tokens: np.ndarray
    ends: np.ndarray

    @staticmethod
    def of(
        outcome: Sequence[int],
        cut: Sequence[bool],
        spelled: Sequence[bool],
        sequences: Sequence[Sequence[int]],
    ) -> Encoded:
        """From plain lists."""
        lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
        tokens = np.fromiter((token for ids in sequences for token in ids), np.int32)
        return Encoded(
            np.array(outcome, dtype=np.uint8),
            np.array(cut, dtype=bool),
            np.array(spelled, dtype=bool),
            tokens,
            np.cumsum(lengths),
        )

    def sequences(self) -> Iterator[tuple[int, ...]]:
        """The sequences in order; equal ids are one object, which is most of the memory."""
        known = list(range(int(self.tokens.max(initial=-1)) + 1))
        start = 0
        for end in self.ends.tolist():
            yield tuple(map(known.__getitem__, self.tokens[start:end].tolist()))
            start = end

    def fits(self, responses: Sequence[int]) -> bool:
        """Whether this can be what became of examples with these numbers of responses."""
        count = len(responses)
        if not (len(self.outcome) == len(self.cut) == len(self.spelled) == count):
            return False
        kept = np.array(responses, dtype=np.int64)[self.outcome == KEPT]
        whole = len(self.tokens) == (int(self.ends[-1]) if len(self.ends) else 0)
        return whole and len(self.ends) == int(kept.sum()) + len(kept)
