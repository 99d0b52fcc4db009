"""Prompts with the responses to other prompts, on which KTO's reference point is estimated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from plot_exp.data.collate import Batch
from plot_exp.data.tokenise import TokenisedExample


@dataclass(frozen=True)
class Mismatch:
    """Makes mismatched batches in the layout of the run.

    Attributes:
        collate: lays examples out as one batch.
        max_length: tokens of prompt and response together.
    """

    collate: Callable[[Sequence[TokenisedExample]], Batch]
    max_length: int

    def batch(
        self,
        examples: Sequence[TokenisedExample],
        partners: Sequence[TokenisedExample | None],
    ) -> Batch | None:
        """Each example's prompt with its partner's responses; None where nobody has a partner."""
        found = [
            mismatched(own, other, self.max_length)
            for own, other in zip(examples, partners, strict=True)
            if other is not None
        ]
        return self.collate(found) if found else None


def partners_of(whole: Sequence[TokenisedExample]) -> list[TokenisedExample | None]:
    """For each example the nearest one before it, in a circle, that has another prompt.

    The circle's order is that of a hash of the contents, so that it does not matter how the batch
    was dealt out to processes and microbatches. None where every prompt is the same.
    """

    def contents(place: int) -> int:
        return hash((whole[place].prompt_ids, *whole[place].response_ids))

    circle = sorted(range(len(whole)), key=contents)
    found: list[TokenisedExample | None] = [None] * len(whole)
    for position, place in enumerate(circle):
        before = (whole[circle[position - step]] for step in range(1, len(circle)))
        own = whole[place].prompt_ids
        found[place] = next((one for one in before if one.prompt_ids != own), None)
    return found


def mismatched(own: TokenisedExample, other: TokenisedExample, max_length: int) -> TokenisedExample:
    """The prompt of one example with the responses of another.

    A prompt too long beside them loses its oldest tokens but the first, which is BOS where there
    is one.
    """
    prompt = own.prompt_ids
    room = max_length - max(map(len, other.response_ids))
    if len(prompt) > room:
        prompt = (prompt[0], *prompt[len(prompt) - room + 1 :])
    example = replace(own.example, responses=other.example.responses, scores=None, desirable=None)
    return TokenisedExample(example, prompt, other.response_ids)
