"""Which of two answers is better: a judge's label, weighed by its log-probability."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plot_exp.data.examples import Message, Role
from plot_exp.errors import UserError
from plot_exp.files import reason
from plot_exp.generators.base import Completion

OWN_PROMPT_NAME = "plot_exp"
# Written for this project; the leaderboard's judge is asked in other words.
OWN_PROMPT = """\
Two assistants, {first} and {second}, answered the same instruction. Which answer would most \
people rather have received? Weigh whether it does what was asked, whether it is right, and \
whether it is clear. Neither its length nor its place should count.

Instruction:
{instruction}

Answer of {first}:
{output_1}

Answer of {second}:
{output_2}

Reply with {first} or {second} and nothing else."""

_PLACES = ("instruction", "output_1", "output_2")
_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class PairPrompt:
    """What a judge is asked about two outputs.

    Attributes:
        turns: with {instruction}, {output_1} and {output_2} in them; other braces are text.
        labels: the answers that name the first and the second output.
    """

    name: str
    turns: tuple[Message, ...]
    labels: tuple[str, str]

    @property
    def digest(self) -> str:
        """Tells this prompt from others."""
        text = repr((self.turns, self.labels))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def messages(self, instruction: str, output_1: str, output_2: str) -> tuple[Message, ...]:
        """The dialogue for the judge; braces inside the texts stay as they are."""
        fields = {"instruction": instruction, "output_1": output_1, "output_2": output_2}
        return tuple(Message(turn.role, _fill(turn.content, fields)) for turn in self.turns)


def own_prompt(labels: tuple[str, str]) -> PairPrompt:
    """This project's own prompt, which is not the published one."""
    text = _fill(OWN_PROMPT, {"first": labels[0], "second": labels[1]})
    return PairPrompt(OWN_PROMPT_NAME, (Message("user", text),), labels)


def read_prompt(path: Path, labels: tuple[str, str]) -> PairPrompt:
    """A prompt from a file: turns in ChatML marks, or one user turn.

    Raises:
        UserError: the file cannot be read, or does not name the three texts.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{path}: the judge's prompt cannot be read ({why}).") from error
    turns = tuple(
        Message(_ROLES.get(role, "user"), content.strip("\n"))
        for role, content in _CHATML.findall(text)
    ) or (Message("user", text),)
    absent = [place for place in _PLACES if not any(f"{{{place}}}" in t.content for t in turns)]
    if absent:
        raise UserError(f"{path}: the judge's prompt does not name {{{absent[0]}}}.")
    return PairPrompt(path.stem, turns, labels)


def share_of_second(completion: Completion, labels: tuple[str, str]) -> float | None:
    """How much the judge prefers the second output: from 0 to 1, or None where it does not say.

    With log-probabilities it is the second label's share of both labels' probability at the first
    token, as AlpacaEval 2 weighs it; a label that is not among the reported tokens counts as zero.
    Without them it is 0 or 1 by the label in the text.
    """
    if completion.top_logprobs:
        found = _probabilities(completion.top_logprobs[0], labels)
        if sum(found) > 0:
            return found[1] / sum(found)
    return _by_text(completion.text, labels)


def first_is_model(instruction: str, seed: int) -> bool:
    """Whether the measured model's output stands first; a function of instruction and seed."""
    digest = hashlib.sha256(f"{seed}\x1f{instruction}".encode("utf-8", "surrogatepass")).digest()
    return bool(digest[0] & 1)


def _probabilities(top: Mapping[str, float], labels: tuple[str, str]) -> tuple[float, float]:
    """Of each label as a token of its own, or else with blanks around it."""
    exact = tuple(math.exp(top[label]) if label in top else 0.0 for label in labels)
    if sum(exact) > 0:
        return exact[0], exact[1]
    loose = [
        math.fsum(math.exp(logp) for token, logp in top.items() if token.strip() == label)
        for label in labels
    ]
    return loose[0], loose[1]


def _by_text(text: str, labels: tuple[str, str]) -> float | None:
    """By the label that alone stands in the text as a word, in its own letter case."""
    named = [re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None for label in labels]
    return float(named[1]) if named[0] != named[1] else None


def _fill(text: str, fields: Mapping[str, str]) -> str:
    pattern = re.compile("|".join(rf"\{{{name}\}}" for name in fields))
    return pattern.sub(lambda match: fields[match[0][1:-1]], text)
