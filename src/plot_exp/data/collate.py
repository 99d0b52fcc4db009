"""Tokenised examples laid out as one batch.

What the losses see (`Responses`, and the tokens by `response_of_token`) does not depend on the
layout; only `input_ids`, `attention_mask` and `position_ids` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from plot_exp.data.tokenise import TokenisedExample


class OnDevice:
    """Dataclass whose tensors move together."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy with every tensor on `device`."""
        moved = {}
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if isinstance(value, Tensor | OnDevice):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)  # type: ignore[type-var]  # as above


@dataclass(frozen=True)
class Responses(OnDevice):
    """What is known of R responses to B prompts, whatever the layout.

    Attributes:
        example: [R] the index of the response's example within the batch.
        rank: [R] 0 for the best of its example; 0 where there is only one.
        score: [R] higher is better, NaN without a score.
        desirable: [R] 1 or 0 for unpaired labelled responses, -1 otherwise.
        length: [R] tokens, EOS included.
        pairs: [P, 2] (chosen, rejected) as indices into R: the best response of each ranked
            example against every other one of it.
        examples: B.
    """

    example: Tensor
    rank: Tensor
    score: Tensor
    desirable: Tensor
    length: Tensor
    pairs: Tensor
    examples: int

    @property
    def chosen(self) -> Tensor:
        """[R] bool: best of its example, or labelled desirable."""
        return torch.where(self.desirable >= 0, self.desirable == 1, self.rank == 0)

    @property
    def rejected(self) -> Tensor:
        """[R] bool: ranked behind another, or labelled undesirable."""
        return torch.where(self.desirable >= 0, self.desirable == 0, self.rank > 0)

    def as_tensors(self) -> dict[str, Any]:
        """The fields by name, for a checkpoint that is loaded with weights only."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def concatenate(parts: Sequence[Responses]) -> Responses:
        """The responses of several microbatches as those of one batch."""
        if len(parts) == 1:
            return parts[0]
        examples = rows = 0
        example, pairs = [], []
        for part in parts:
            example.append(part.example + examples)
            pairs.append(part.pairs + rows)
            examples += part.examples
            rows += len(part.rank)
        return Responses(
            example=torch.cat(example),
            rank=torch.cat([part.rank for part in parts]),
            score=torch.cat([part.score for part in parts]),
            desirable=torch.cat([part.desirable for part in parts]),
            length=torch.cat([part.length for part in parts]),
            pairs=torch.cat(pairs),
            examples=examples,
        )


@dataclass(frozen=True)
class Batch(OnDevice):
    """One forward pass: R responses with N scored tokens in rows of T positions.

    Attributes:
        input_ids, attention_mask, position_ids: [rows, T].
        predict_index: [N] where in the flattened [rows·T] hidden states each scored token is
            predicted from.
        targets: [N] the scored tokens.
        token_keys: int64 [rows, T], a hash of prompt, response and position: the same for a token
            wherever its example stands; zero for padding.
        response_of_token: [N] the response each belongs to, ascending.
        responses: what is known of the responses.
        tokens: non-padding positions, for throughput.
        sources: the examples it was made from.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    predict_index: Tensor
    targets: Tensor
    token_keys: Tensor
    response_of_token: Tensor
    responses: Responses
    tokens: int
    sources: tuple[TokenisedExample, ...]


def describe_responses(examples: Sequence[TokenisedExample]) -> Responses:
    """The response-level facts of a batch of examples."""
    example: list[int] = []
    rank: list[int] = []
    score: list[float] = []
    desirable: list[int] = []
    length: list[int] = []
    pairs: list[tuple[int, int]] = []
    for index, item in enumerate(examples):
        first = len(example)
        labels = item.example.desirable
        scores = item.example.scores
        for position, ids in enumerate(item.response_ids):
            example.append(index)
            rank.append(0 if labels is not None else position)
            score.append(float("nan") if scores is None else scores[position])
            desirable.append(-1 if labels is None else int(labels[position]))
            length.append(len(ids))
        if labels is None:
            pairs += [(first, first + other) for other in range(1, len(item.response_ids))]
    return Responses(
        example=torch.tensor(example),
        rank=torch.tensor(rank),
        score=torch.tensor(score, dtype=torch.float32),
        desirable=torch.tensor(desirable),
        length=torch.tensor(length),
        pairs=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        examples=len(examples),
    )


def collate_padded(examples: Sequence[TokenisedExample], pad_id: int) -> Batch:
    """One row a response, prompt and response, padded on the right."""
    rows = [(item.prompt_ids, ids) for item in examples for ids in item.response_ids]
    width = max(len(prompt) + len(response) for prompt, response in rows)
    input_ids = torch.full((len(rows), width), pad_id)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    token_keys = torch.zeros_like(input_ids)
    predict, targets, response_of_token = [], [], []
    for row, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        input_ids[row, :end] = torch.tensor(prompt + response)
        attention_mask[row, :end] = 1
        token_keys[row, :end] = torch.arange(end) + torch.cat(
            [
                torch.full((len(prompt),), hash(prompt)),
                torch.full((len(response),), hash((prompt, response))),
            ]
        )
        before_response = row * width + len(prompt) - 1
        predict.append(torch.arange(before_response, before_response + len(response)))
        targets.append(torch.tensor(response))
        response_of_token.append(torch.full((len(response),), row))
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
        predict_index=torch.cat(predict),
        targets=torch.cat(targets),
        token_keys=token_keys,
        response_of_token=torch.cat(response_of_token),
        responses=describe_responses(examples),
        tokens=int(attention_mask.sum()),
        sources=tuple(examples),
    )
