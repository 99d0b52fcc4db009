"""Tokenised examples laid out as one batch.

What the losses see (`Responses`, and the tokens by `response_of_token`) does not depend on the
layout (`packing`); only where the tokens stand does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plot_exp.data.on_device import OnDevice
from plot_exp.data.packing import PADDED, Layout, Visibility, first_fit_decreasing
from plot_exp.data.tokenise import TokenisedExample


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
            predicted from; the first tokens of an example's responses may share an index.
        own_index: [N] where in them each scored token itself stands.
        targets: [N] the scored tokens.
        token_keys: int64 [rows, T], a hash of prompt, response and position: the same for a token
            wherever its example stands; zero for padding.
        response_of_token: [N] the response each belongs to, ascending.
        responses: what is known of the responses.
        tokens: non-padding positions, for throughput.
        sources: the examples it was made from.
        visibility: which tokens see which, where that is not all before them in their row.
        idle: it keeps a process that has no examples left in step with the others, which have;
            nothing is learned from it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    predict_index: Tensor
    own_index: Tensor
    targets: Tensor
    token_keys: Tensor
    response_of_token: Tensor
    responses: Responses
    tokens: int
    sources: tuple[TokenisedExample, ...]
    visibility: Visibility | None = None
    idle: bool = False


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


def collate(examples: Sequence[TokenisedExample], pad_id: int, layout: Layout = PADDED) -> Batch:
    """The examples as rows; the scored tokens have the same order in every layout."""
    rows = _place(examples, layout)
    size = rows.count * rows.width
    ids = np.full(size, pad_id, dtype=np.int64)
    positions, keys = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    example, branch = np.full(size, -1, dtype=np.int32), np.zeros(size, dtype=np.int32)
    targets: list[int] = []
    predict, own = [], []

    def write(start: int, tokens: tuple[int, ...], first: int, key: int) -> slice:
        stretch = slice(start, start + len(tokens))
        steps = np.arange(first, first + len(tokens))
        ids[stretch], positions[stretch], keys[stretch] = tokens, steps, steps + key
        return stretch

    for index, (item, starts) in enumerate(zip(examples, rows.starts, strict=True)):
        prompt, last_prompt = item.prompt_ids, -1
        for number, (response, start) in enumerate(zip(item.response_ids, starts, strict=True), 1):
            if start.prompt != last_prompt:
                example[write(start.prompt, prompt, 0, hash(prompt))] = index
                last_prompt = start.prompt
            stretch = write(start.response, response, len(prompt), hash((prompt, response)))
            example[stretch], branch[stretch] = index, number
            own.append(np.arange(stretch.start, stretch.stop))
            predict.append(own[-1] - 1)
            predict[-1][0] = start.prompt + len(prompt) - 1
            targets += response

    def rectangle(flat: np.ndarray) -> Tensor:
        return torch.from_numpy(flat.reshape(rows.count, rows.width))

    responses = describe_responses(examples)
    seen = Visibility(rectangle(example), rectangle(branch), rows.pieces)
    return Batch(
        input_ids=rectangle(ids),
        attention_mask=rectangle((example >= 0).astype(np.int64)),
        position_ids=rectangle(positions),
        predict_index=torch.from_numpy(np.concatenate(predict)),
        own_index=torch.from_numpy(np.concatenate(own)),
        targets=torch.tensor(targets),
        token_keys=rectangle(keys),
        response_of_token=torch.arange(len(own)).repeat_interleave(responses.length),
        responses=responses,
        tokens=int((example >= 0).sum()),
        sources=tuple(examples),
        visibility=None if layout.name == "padded" else seen,
    )


@dataclass(frozen=True)
class _Start:
    """Where a response and its prompt begin in the flattened rows."""

    prompt: int
    response: int


@dataclass(frozen=True)
class _Rows:
    """`count` rows of `width` positions, and the start of every response by example."""

    count: int
    width: int
    starts: list[list[_Start]]
    pieces: tuple[int, ...] = ()


def _place(examples: Sequence[TokenisedExample], layout: Layout) -> _Rows:
    if layout.name == "padded":
        return _padded(examples, layout.multiple)
    lengths = [layout.length(item) for item in examples]
    rows = [[index] for index in range(len(examples))]
    if layout.name == "packed" and not layout.joined:
        rows = first_fit_decreasing(lengths, layout.capacity or max(lengths))
    sizes = [sum(lengths[index] for index in row) for row in rows]
    joined = layout.joined
    width = _multiple(sum(sizes) if joined else max(sizes), layout.multiple)
    starts: list[list[_Start]] = [[] for _ in examples]
    at = 0
    for number, row in enumerate(rows):
        at = at if joined else number * width
        for index in row:
            prompt, item = at, examples[index]
            at += len(item.prompt_ids)
            for ids in item.response_ids:
                starts[index].append(_Start(prompt, at))
                at += len(ids)
    if not joined:
        return _Rows(len(rows), width, starts)
    padding = (width - sum(sizes),) if width > sum(sizes) else ()
    return _Rows(1, width, starts, (*sizes, *padding))


def _padded(examples: Sequence[TokenisedExample], multiple: int) -> _Rows:
    """One row a response."""
    width = _multiple(max(PADDED.length(item) for item in examples), multiple)
    starts, row = [], 0
    for item in examples:
        prompts = [(row + place) * width for place in range(len(item.response_ids))]
        starts.append([_Start(prompt, prompt + len(item.prompt_ids)) for prompt in prompts])
        row += len(prompts)
    return _Rows(row, width, starts)


def _multiple(length: int, of: int) -> int:
    return -(-length // of) * of


def collate_padded(examples: Sequence[TokenisedExample], pad_id: int) -> Batch:
    """One row a response, prompt and response, padded on the right."""
    return collate(examples, pad_id)
