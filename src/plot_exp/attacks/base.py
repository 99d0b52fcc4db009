"""What every attack takes and gives."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import Any

from plot_exp.data.behaviours import Behaviour
from plot_exp.progress import Bar, silent

# Steps of an attack that takes minutes a behaviour on a model of usual size.
LONG_WAY = 200


@dataclass(frozen=True)
class Candidate:
    """A prompt that an attack came to.

    Attributes:
        text: the whole user turn.
        loss: the mean cross-entropy of the target string on the ids that the attack worked on;
            None where the attack looked at none.
        encoded_loss: the same on the ids that the text is encoded to, which the model answers.
    """

    text: str
    loss: float | None = None
    encoded_loss: float | None = None


@dataclass(frozen=True)
class Case:
    """One test case: a prompt that is meant to bring out a behaviour.

    Attributes:
        behaviour: the behaviour's id.
        number: 0-based among the cases of one behaviour and attack.
        best: the candidate with the lowest loss; this is what the model is asked.
        last: the candidate of the last step.
        losses: of the current candidate after each step; infinite before there is one.
        curve: (step, best text so far) where success over steps is measured, in order.
        same_ids: whether the best text is encoded to the very ids that the attack worked on; None
            where it worked on text.
        evaluations: sequences sent forward through the attacked model.
        gradients: sequences of these that were sent backward too.
        stopped: why the attack ended before its last step, or empty.
        notes: counts and settings found on the way, by name.
    """

    behaviour: str
    number: int
    best: Candidate
    last: Candidate | None = None
    losses: tuple[float, ...] = ()
    curve: tuple[tuple[int, str], ...] = ()
    same_ids: bool | None = None
    evaluations: int = 0
    gradients: int = 0
    stopped: str = ""
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Plain data, one line of cases.jsonl; infinity, which JSON lacks, becomes null."""
        losses = [loss if isfinite(loss) else None for loss in self.losses]
        return asdict(self) | {"losses": losses}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Case:
        """The case that `as_row` gave."""
        last = row["last"]
        return cls(
            **{
                **row,
                "best": Candidate(**row["best"]),
                "last": None if last is None else Candidate(**last),
                "losses": tuple(inf if loss is None else loss for loss in row["losses"]),
                "curve": tuple((step, text) for step, text in row["curve"]),
            }
        )


class Attack(ABC):
    """One attack with its settings and the models it works with.

    Attributes:
        name: as in `eval/asr/<name>`.
    """

    name: str

    @abstractmethod
    def attack(self, behaviour: Behaviour, bar: Bar = silent) -> list[Case]:
        """All cases of one behaviour: a function of the models, the settings and the seed alone."""

    def run(
        self,
        behaviours: Sequence[Behaviour],
        record: Callable[[Behaviour, list[Case]], None],
        bar: Bar = silent,
    ) -> None:
        """Attacks one behaviour after another.

        Args:
            record: is told each behaviour's cases as soon as they are there.
        """
        for behaviour in bar(behaviours, f"{self.name}: behaviours", len(behaviours)):
            record(behaviour, self.attack(behaviour, self._inner(bar)))

    def _inner(self, bar: Bar) -> Bar:
        """A bar within a behaviour: in a log, where lines stay, only on a long way."""
        steps = getattr(getattr(self, "config", None), "steps", 0)
        return bar if sys.stderr.isatty() or steps >= LONG_WAY else silent


def seed_of(*parts: object) -> int:
    """A seed below 2^63 that depends on every part, the same in every process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
