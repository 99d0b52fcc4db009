"""What every generator takes and gives, whether the model is here or behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeGuard

from plot_exp.data.examples import Message
from plot_exp.progress import Bar, silent

Prompt: TypeAlias = Sequence[Message] | Sequence[int] | str
"""A dialogue for the model's chat template; ids as they are; or a text to be continued, for which
the tokenizer adds what it always adds (one BOS) and no template is used."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: the smallest set of tokens with this much probability is drawn from.
        max_new_tokens: the end token included.
        stop: texts that end a completion; neither they nor what follows is part of it.
        seed: a prompt's completion is a function of the seed, the prompt and the sample's number
            alone, whatever stands beside it in a batch. (At an endpoint the server decides.)
        frequency_penalty: taken from a token's logit for each time that it was generated.
        presence_penalty: taken once if it was generated at all.
        top_logprobs: so many of the likeliest tokens at each place are reported, with their
            log-probabilities before temperature and penalties.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise ValueError(f"no such sampling: {self}")
        if "" in self.stop:
            raise ValueError("an empty text cannot stop a completion")


@dataclass(frozen=True)
class Completion:
    """One generated response.

    Attributes:
        text: without special tokens, without the text that stopped it, and without white space
            around it.
        finish: `stop` for the end token or a stop text, `length` for the limit of tokens,
            `filtered` where an endpoint refused to answer (the text is then empty).
        ids: the generated ids, the end token included; empty where they are not known. Where a
            stop text ended it, they still hold that text.
        cut: the prompt was too long and lost its oldest part.
        top_logprobs: for each generated token the likeliest ones as text; None where not asked
            for or not offered.
    """

    text: str
    finish: Literal["stop", "length", "filtered"] = "stop"
    ids: tuple[int, ...] = ()
    cut: bool = False
    top_logprobs: tuple[dict[str, float], ...] | None = None

    @property
    def finished(self) -> bool:
        """Whether the model ended by itself, before the limit."""
        return self.finish == "stop"


Each: TypeAlias = Callable[[int, list[Completion]], None]
"""Called with a prompt's place and its completions as soon as all of them are there."""


class Generator(Protocol):
    """A model that answers. A judge is one too."""

    @property
    def name(self) -> str:
        """What is said of it beside its completions: a hub id, a directory, a model's name at an
        endpoint."""
        ...

    def __call__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling = ...,
        *,
        samples: int = 1,
        bar: Bar = silent,
        label: str = "generating",
        each: Each | None = None,
    ) -> list[list[Completion]]:
        """`samples` completions of each prompt, in the order of the prompts.

        Args:
            each: is told of every prompt as it is done, in any order, one call at a time; what it
                raises ends the generation.

        Raises:
            ValueError: several samples are asked of greedy decoding, which has one completion.
            UserError: a prompt or a setting cannot be used.
            RunError: an endpoint failed for good; what it had answered is in its cache.
        """
        ...


def check_samples(sampling: Sampling, samples: int) -> None:
    """Refuses several samples of greedy decoding, which has one completion."""
    if samples > 1 and not sampling.temperature:
        raise ValueError("greedy decoding gives one answer; several need a temperature")


def is_dialogue(prompt: Prompt) -> TypeGuard[Sequence[Message]]:
    """Whether a prompt is a list of messages.

    Raises:
        ValueError: the prompt is an empty list.
    """
    if isinstance(prompt, str):
        return False
    if not len(prompt):
        raise ValueError("a prompt needs a message or a token")
    return isinstance(prompt[0], Message)
