"""A model in this process: prompts in, completions out, in batches that stay full."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch

from plot_exp.data.tokenise import ChatTokeniser, fit_prompt
from plot_exp.errors import RunError, UserError
from plot_exp.generators.base import (
    Completion,
    Each,
    Prompt,
    Sampling,
    check_samples,
    is_dialogue,
)
from plot_exp.generators.decoding import Batch, Row
from plot_exp.generators.drawing import uniforms
from plot_exp.models.policy import Policy
from plot_exp.progress import Bar, silent

GREEDY = Sampling()
# Finished rows are replaced when they are this share of the batch: moving keys and values costs.
REPLACED_AT = 1 / 8
UNLIMITED = 1 << 30


@dataclass
class LocalGenerator:
    """A policy with its tokenizer, ready to answer.

    The model's own generation config plays no part but for its end tokens: Qwen2.5's has a
    repetition penalty, which would change greedy answers too.

    Attributes:
        batch_size: rows decoded together; halved, for good, each time that memory runs out.
        max_prompt: tokens of a prompt; a longer one loses its oldest part. None for what the
            model's context leaves beside the new tokens.
    """

    policy: Policy
    tokeniser: ChatTokeniser
    batch_size: int = 32
    max_prompt: int | None = None
    name: str = "policy"

    def __call__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling = GREEDY,
        *,
        samples: int = 1,
        bar: Bar = silent,
        label: str = "generating",
        each: Each | None = None,
    ) -> list[list[Completion]]:
        """See `Generator`."""
        check_samples(sampling, samples)
        room = self._room(sampling.max_new_tokens)
        encoded = [self._fitted(prompt, room) for prompt in prompts]
        rows = [
            Row(
                place * samples + sample,
                ids,
                cut,
                uniforms(sampling, ids, sample) if sampling.temperature else None,
            )
            for place, (ids, cut) in enumerate(encoded)
            for sample in range(samples)
        ]
        found: list[dict[int, Completion]] = [{} for _ in prompts]
        training = self.policy.training
        self.policy.eval()
        try:
            for row in bar(self._decoded(rows, sampling), label, len(rows)):
                place, sample = divmod(row.place, samples)
                found[place][sample] = self._completion(row, sampling)
                if each is not None and len(found[place]) == samples:
                    each(place, [found[place][number] for number in range(samples)])
        finally:
            self.policy.train(training)
        return [[row[number] for number in range(samples)] for row in found]

    def encode(self, prompt: Prompt, max_new_tokens: int = 1) -> tuple[int, ...]:
        """The ids that the model answers, cut to what there is room for.

        Raises:
            UserError: the model's context is too short for `max_new_tokens`, or its chat template
                refuses the dialogue.
        """
        return self._fitted(prompt, self._room(max_new_tokens))[0]

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokenizer's EOS and those of the model's generation config (Llama 3 has three)."""
        listed = self.policy.model.generation_config.eos_token_id
        others = listed if isinstance(listed, list) else [listed]
        return frozenset({self.tokeniser.eos_id, *(one for one in others if one is not None)})

    def _room(self, max_new_tokens: int) -> int:
        """How many tokens a prompt may have."""
        context = getattr(self.policy.model.config, "max_position_embeddings", None)
        if context is None:
            return self.max_prompt or UNLIMITED
        if context <= max_new_tokens:
            raise UserError(
                f"max_new_tokens={max_new_tokens} leaves no room for a prompt: {self.name} has a "
                f"context of {context} tokens"
            )
        return min(self.max_prompt or context, context - max_new_tokens)

    def _fitted(self, prompt: Prompt, room: int) -> tuple[tuple[int, ...], bool]:
        """The ids of a prompt, and whether it lost its oldest part."""
        if is_dialogue(prompt):
            return fit_prompt(self.tokeniser, prompt, room)
        if isinstance(prompt, str):
            ids = text_ids(self.tokeniser, prompt)
        else:
            ids = cast(tuple[int, ...], tuple(prompt))
        if len(ids) <= room:
            return ids, False
        start = ids[: int(ids[0] == self.tokeniser.bos_id)]
        return (*start, *ids[len(ids) - room + len(start) :]), True

    def _decoded(self, rows: Sequence[Row], sampling: Sampling) -> Iterator[Row]:
        """Every row as it is done."""
        pad_id = self.tokeniser.tokenizer.pad_token_id
        waiting = deque(sorted(rows, key=lambda row: -len(row.prompt)))
        batch = Batch(self.policy, pad_id, sampling)
        while waiting or batch.rows:
            try:
                self._advance(batch, waiting)
                failed = False
            except torch.OutOfMemoryError:
                failed = True
            if failed:  # outside of the handler, which holds on to tensors
                self._retreat(batch, waiting)
                batch = Batch(self.policy, pad_id, sampling)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            for row in batch.rows:
                if row.finish is None:
                    row.finish = self._finish(row, sampling)
                    if row.finish is not None:
                        yield row

    def _advance(self, batch: Batch, waiting: deque[Row]) -> None:
        """One more token for every row, or new rows in the place of finished ones."""
        going = [place for place, row in enumerate(batch.rows) if row.finish is None]
        finished = len(batch.rows) - len(going)
        if finished and (not going or finished >= REPLACED_AT * len(batch.rows)):
            batch.keep(going)
        free = self.batch_size - len(batch.rows)
        enough = not batch.rows or (free >= REPLACED_AT * self.batch_size and batch.joinable)
        if waiting and enough:
            taken = [waiting[place] for place in range(min(free, len(waiting)))]
            batch.admit(taken)
            for _ in taken:
                waiting.popleft()
        elif batch.rows:
            batch.step()

    def _retreat(self, batch: Batch, waiting: deque[Row]) -> None:
        """After memory ran out: unfinished rows wait again, for batches of half the size."""
        waiting.extendleft(reversed([row for row in batch.rows if row.finish is None]))
        for row in waiting:
            row.restart()
        if self.batch_size == 1:
            raise RunError(
                f"{self.name}: memory runs out with a single prompt of {len(waiting[0].prompt)} "
                "tokens; shorten the prompts or the answers"
            )
        self.batch_size = max(1, min(self.batch_size, len(batch.rows) or self.batch_size) // 2)

    def _finish(self, row: Row, sampling: Sampling) -> Literal["stop", "length"] | None:
        """Why a row is done, or None."""
        if row.ids[-1] in self.end_ids:
            return "stop"
        if sampling.stop:
            # Every character takes at most four tokens of bytes.
            tail = row.ids[-4 * max(map(len, sampling.stop)) - 1 :]
            if self._stop_place(tail, sampling) is not None:
                return "stop"
        return "length" if len(row.ids) == sampling.max_new_tokens else None

    def _stop_place(self, ids: Sequence[int], sampling: Sampling) -> int | None:
        text = self._text(ids)
        places = [text.find(stop) for stop in sampling.stop if stop in text]
        return min(places) if places else None

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.tokeniser.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _completion(self, row: Row, sampling: Sampling) -> Completion:
        assert row.finish is not None
        text = self._text(row.ids)
        place = self._stop_place(row.ids, sampling)
        top = None
        if sampling.top_logprobs:
            # Several ids may decode to one text: the likeliest comes last and stays.
            top = tuple({self._text([one]): logp for one, logp in found[::-1]} for found in row.top)
        return Completion(text[:place].strip(), row.finish, tuple(row.ids), row.cut, top)


def text_ids(tokeniser: ChatTokeniser, text: str) -> tuple[int, ...]:
    """The ids of a text to be continued: special tokens that it spells are read as such.

    BOS stands before it where the tokenizer adds one and the text does not begin with it.
    """
    ids = tuple(tokeniser.tokenizer(text, add_special_tokens=False).input_ids)
    if tokeniser.adds_bos and ids[:1] != (tokeniser.bos_id,):
        assert tokeniser.bos_id is not None
        return (tokeniser.bos_id, *ids)
    return ids
