"""The optimizer's batches, as a pure function of seed and step, collated ahead of their use.

Nothing is kept between steps, so a run that is resumed at any step sees the batches that it
would have seen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from plot_exp.data.collate import Batch, collate
from plot_exp.data.order import (
    balanced,
    epoch_order,
    even_sizes,
    grouped_order,
    in_runs,
    sizes_up_to,
)
from plot_exp.data.packing import PADDED, Layout
from plot_exp.data.tokenise import TokenisedExample

T = TypeVar("T")
STEPS_AHEAD = 2


def total_steps(count: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps`, or what `epochs` passes over the examples take."""
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil(round(count * epochs) / batch_size))


class StepLoader:
    """Yields, for each optimizer step that remains, the batch as a list of microbatches.

    Batches run on across the ends of epochs, so no example is left out; without `max_steps` the
    last batch is cut where the last epoch ends. Which examples stand in a batch depends neither on
    its microbatches nor on the number of processes.

    Args:
        examples: the training examples.
        microbatch_size: examples of a microbatch at most; None for the whole batch.
        first_step: called when iteration starts; the steps already taken.
        rank, processes: which part of every batch is this process's.
        layout: how a microbatch's examples become rows.
        group_by_length: batches hold examples of similar lengths.
    """

    def __init__(
        self,
        examples: Sequence[TokenisedExample],
        *,
        batch_size: int,
        microbatch_size: int | None,
        epochs: float,
        max_steps: int | None,
        seed: int,
        pad_id: int,
        first_step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        processes: int = 1,
        layout: Layout = PADDED,
        group_by_length: bool = False,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.microbatch_size = microbatch_size or batch_size
        self.steps = total_steps(len(examples), batch_size, epochs, max_steps)
        self.last = None if max_steps is not None else round(len(examples) * epochs)
        self.seed = seed
        self.pad_id = pad_id
        self.first_step = first_step
        self.rank, self.processes = rank, processes
        self.layout = layout
        self.lengths = [layout.length(item) for item in examples]
        self.group_by_length = group_by_length
        self._order = lru_cache(maxsize=2)(self._epoch)

    def __len__(self) -> int:
        return self.steps

    def indices(self, step: int) -> list[int]:
        """Which examples step `step` takes, in order."""
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        if self.last is not None:
            stop = max(start + 1, min(stop, self.last))
        count = len(self.examples)
        return [self._order(place // count)[place % count] for place in range(start, stop)]

    def own_indices(self, step: int) -> list[int]:
        """This process's part of the step's examples; the parts have about as many tokens."""
        every = self.indices(step)
        if self.processes == 1:
            return every
        lengths = [self.lengths[index] for index in every]
        parts = balanced(lengths, even_sizes(len(every), self.processes))
        return [every[place] for place in parts[self.rank]]

    def _epoch(self, epoch: int) -> list[int]:
        if self.group_by_length:
            return grouped_order(self.lengths, self.seed, epoch, self.batch_size)
        return epoch_order(len(self.examples), self.seed, epoch)

    def microbatches(self, step: int) -> list[Batch]:
        """The collated microbatches of one optimizer step.

        Where rows are padded, those of similar lengths stand together; else every microbatch gets
        about as many tokens, which keeps the largest, and so the memory, small. Every process has
        as many: idle ones make up for examples that it lacks.
        """
        own = self.own_indices(step)
        lengths, size = [self.lengths[index] for index in own], self.microbatch_size
        if self.layout.pads:
            parts = in_runs(lengths, size)
        else:
            parts = balanced(lengths, sizes_up_to(len(own), size))
        found = [
            collate([self.examples[own[place]] for place in part], self.pad_id, self.layout)
            for part in parts
        ]
        every = self.indices(step)
        largest = max(even_sizes(len(every), self.processes))
        lacking = math.ceil(largest / size) - len(found)
        return found + [self.idle_batch()] * lacking

    def idle_batch(self) -> Batch:
        """The shortest example, to keep pace with."""
        shortest = min(range(len(self.lengths)), key=self.lengths.__getitem__)
        return replace(collate([self.examples[shortest]], self.pad_id, self.layout), idle=True)

    def __iter__(self) -> Iterator[list[Batch]]:
        return ahead(self.microbatches, range(self.first_step(), self.steps))


def ahead(make: Callable[[int], T], steps: Iterable[int]) -> Iterator[T]:
    """`make(step)` for each step in order, made in a thread `STEPS_AHEAD` steps before its use.

    What `make` raises is raised where its step is due.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="collate")
    waiting: deque[Future[T]] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > STEPS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def evaluation_batches(
    examples: Sequence[TokenisedExample],
    batch_size: int,
    pad_id: int,
    layout: Layout = PADDED,
) -> Iterator[Batch]:
    """Batches for scoring without gradients, grouped by length to spare padding."""
    ordered = sorted(examples, key=layout.length)
    for start in range(0, len(ordered), batch_size):
        yield collate(ordered[start : start + batch_size], pad_id, layout)
