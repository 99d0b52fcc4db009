"""A generator whose answers a test writes, and which remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from plot_exp.data.examples import Message
from plot_exp.generators.base import Completion, Each, Sampling


class Scripted:
    """Answers by a function of the dialogue; stops with an error after `stops_after` prompts.

    Attributes:
        asked: every dialogue and sampling, in order.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Message]], str | Completion],
        name: str = "scripted",
        stops_after: int | None = None,
    ) -> None:
        self.answer, self.name, self.stops_after = answer, name, stops_after
        self.asked: list[tuple[tuple[Message, ...], Sampling]] = []

    def __call__(
        self,
        prompts: Sequence[Any],
        sampling: Sampling = Sampling(),  # noqa: B008
        *,
        each: Each | None = None,
        **_: Any,
    ) -> list[list[Completion]]:
        found = []
        for place, prompt in enumerate(prompts):
            if self.stops_after is not None and len(self.asked) >= self.stops_after:
                raise KeyboardInterrupt
            self.asked.append((tuple(prompt), sampling))
            answer = self.answer(prompt)
            completion = answer if isinstance(answer, Completion) else Completion(answer)
            found.append([completion])
            if each is not None:
                each(place, [completion])
        return found
