"""What a source yields: a prompt, its responses, and what is known of their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]
Kind = Literal["ranked", "single", "unpaired"]


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str


@dataclass(frozen=True)
class Origin:
    """Where an example came from: a file (or hub name) and its 0-based row."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}"


@dataclass(frozen=True)
class PreferenceExample:
    """A prompt and its responses.

    Attributes:
        prompt: chat messages; the last one is never the assistant's.
        responses: the texts of the answering assistant turn. Without `desirable` they are ranked,
            best first: two make a pair, more a ranking, one a demonstration.
        scores: one number a response, higher is better, or None.
        desirable: one label a response for unpaired data, or None where responses are ranked.
        category: the sub-preference or subset that metrics are split by.
        dataset: the name of the dataset it belongs to (`dataset=mix` holds several).
        origin: file and row.
        answer: the gold final answer where a grader can check one, else None.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    category: str
    dataset: str
    origin: Origin
    scores: tuple[float, ...] | None = None
    desirable: tuple[bool, ...] | None = None
    answer: str | None = None

    @property
    def kind(self) -> Kind:
        """`unpaired` where responses carry labels, `single` for one response, else `ranked`."""
        if self.desirable is not None:
            return "unpaired"
        return "single" if len(self.responses) == 1 else "ranked"


@dataclass
class Split:
    """The two parts of a dataset that a run uses; they share no row."""

    train: list[PreferenceExample] = field(default_factory=list)
    validation: list[PreferenceExample] = field(default_factory=list)
