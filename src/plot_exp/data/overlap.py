"""Training prompts that also stand in validation, by normalised hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from plot_exp.data.examples import Message, PreferenceExample, Split


def prompt_hash(prompt: Sequence[Message]) -> str:
    """A hash of the roles and texts, blind to letter case and to the amount of white space."""
    digest = hashlib.sha256()
    for message in prompt:
        text = " ".join(message.content.casefold().split())
        # Lone surrogates cannot be encoded strictly.
        digest.update(f"{message.role}\x1f{text}\x1e".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def overlapping(split: Split) -> list[PreferenceExample]:
    """The training examples whose prompt also stands in validation."""
    held_out = {prompt_hash(example.prompt) for example in split.validation}
    return [example for example in split.train if prompt_hash(example.prompt) in held_out]


def overlap(split: Split) -> int:
    """The number of training examples whose prompt also stands in validation."""
    return len(overlapping(split))
