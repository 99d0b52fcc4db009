"""A reward model as a judge: dialogues in, one number each out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from plot_exp.data.examples import Message
from plot_exp.judges.reward_dialogue import DialogueEncoder, Encoded, Form
from plot_exp.progress import Bar, silent

LONGEST = 2048


@dataclass(frozen=True)
class Reward:
    """What the model gives one dialogue.

    Attributes:
        value: None where it is no finite number.
        shortened: whether the oldest part of the dialogue did not fit.
    """

    value: float | None
    shortened: bool


class RewardJudge:
    """Scores responses in batches of like lengths.

    Args:
        model, tokenizer: see `models.reward_model.load_reward_model`.
        form: how dialogues are written; None takes what the tokenizer is for.
        max_length: tokens of a dialogue; None for what the model takes, 2048 at most.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int = 16,
        form: Form | None = None,
        max_length: int | None = None,
    ) -> None:
        self.model, self.pad_id, self.batch_size = model, int(tokenizer.pad_token_id), batch_size
        if max_length is None:
            known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            max_length = min(LONGEST, known or LONGEST)
        self.encode = DialogueEncoder(tokenizer, max_length, form)

    @contextmanager
    def at(self, device: torch.device) -> Iterator[None]:
        """The model on a device for the while; it waits in main memory, beside other models."""
        self.model.to(device)
        try:
            yield
        finally:
            self.model.to("cpu")

    def __call__(
        self,
        dialogues: Sequence[tuple[Sequence[Message], str]],
        *,
        bar: Bar = silent,
        label: str = "scoring responses",
        each: Callable[[int, Reward], None] | None = None,
    ) -> list[Reward]:
        """The reward of each prompt and response, in their order.

        Args:
            each: is told of every reward as it is known.
        """
        encoded = [self.encode(prompt, response) for prompt, response in dialogues]
        order = sorted(range(len(encoded)), key=lambda place: -len(encoded[place].ids))
        found: list[Reward | None] = [None] * len(encoded)
        starts = range(0, len(order), self.batch_size)
        for start in bar(starts, label, len(starts)):
            places = order[start : start + self.batch_size]
            values = self._batch([encoded[place] for place in places])
            for place, value in zip(places, values, strict=True):
                known = value if math.isfinite(value) else None
                reward = Reward(known, encoded[place].shortened)
                found[place] = reward
                if each is not None:
                    each(place, reward)
        return [reward for reward in found if reward is not None]

    @torch.no_grad()
    def _batch(self, rows: list[Encoded]) -> list[float]:
        width = max(len(row.ids) for row in rows)
        inputs = {"input_ids": torch.full((len(rows), width), self.pad_id)}
        inputs["attention_mask"] = torch.zeros_like(inputs["input_ids"])
        if all(row.types is not None for row in rows):
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        for place, row in enumerate(rows):
            inputs["input_ids"][place, : len(row.ids)] = torch.tensor(row.ids)
            inputs["attention_mask"][place, : len(row.ids)] = 1
            if "token_type_ids" in inputs:
                inputs["token_type_ids"][place, : len(row.ids)] = torch.tensor(row.types)
        device = next(self.model.parameters()).device
        logits = self.model(**{key: tensor.to(device) for key, tensor in inputs.items()}).logits
        return [float(value) for value in logits.float().reshape(len(rows), -1)[:, 0].cpu()]
