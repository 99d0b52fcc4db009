"""The small grammar that every sub-preference of the demo set is written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, Literal, TypeVar

Part = Literal["train", "validation"]
Fact = TypeVar("Fact")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Phrases:
    """Templates of one purpose, some of which are held out: validation never repeats training.

    Attributes:
        train: templates with `{slots}`, used in the training part only.
        validation: templates used in the validation part only.

    Raises:
        ValueError: a part is empty or a template stands in both.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.train or not self.validation:
            raise ValueError("each part needs at least one template")
        shared = set(self.train) & set(self.validation)
        if shared:
            raise ValueError(f"held-out templates also stand in training: {sorted(shared)}")

    def of(self, part: Part) -> tuple[str, ...]:
        """The templates of one part."""
        return self.train if part == "train" else self.validation

    def fill(self, part: Part, rng: Random, **slots: str) -> str:
        """A template of `part` drawn by `rng`, its slots filled, its first letter a capital."""
        return capitalized(rng.choice(self.of(part)).format(**slots))

    def fill_twice(
        self, part: Part, rng: Random, slot: str, values: tuple[str, str], **slots: str
    ) -> tuple[str, str]:
        """One template of `part` with `slot` filled by each of two values: a minimal pair."""
        template = rng.choice(self.of(part))
        first, second = (template.format(**{slot: value}, **slots) for value in values)
        return capitalized(first), capitalized(second)


@dataclass(frozen=True)
class Draft:
    """One written example before it gets its place in the set.

    Attributes:
        prompt: the user's question.
        chosen: the better answer.
        rejected: the worse answer.
        answer: the gold final number, for mathematics.
    """

    prompt: str
    chosen: str
    rejected: str
    answer: str | None = None


@dataclass(frozen=True)
class SubPreference(Generic[Fact]):
    """One category: a closed world of facts and the templates that speak of them.

    Each fact has one right and one wrong answer, and every answer is right for one fact and wrong
    for another (see `in_a_circle`). So no answer is good or bad by its words, and a model that saw
    both sides equally often prefers neither.

    Attributes:
        name: the category.
        facts: everything that can be asked; training and validation share it.
        phrases: all templates in use, by purpose; the parts share none of them.
        write: makes a draft on one fact from the templates of one part.
    """

    name: str
    facts: tuple[Fact, ...]
    phrases: dict[str, Phrases]
    write: Callable[[Fact, Part, Random], Draft]


def in_a_circle(answers: Sequence[Answer]) -> tuple[tuple[Answer, Answer], ...]:
    """Each answer as the right one, with the next in the circle as the wrong one.

    A circle of three or more gives each question a pair of answers of its own. Were two answers
    swapped, a model trained on both sides would come to see their two questions as one.
    """
    return tuple(zip(answers, [*answers[1:], answers[0]], strict=True))


def capitalized(text: str) -> str:
    """`text` with its first letter as a capital and the others as they are."""
    return text[:1].upper() + text[1:]
