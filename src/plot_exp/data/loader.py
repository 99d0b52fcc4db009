"""The optimizer's batches, as a pure function of seed and step.

Nothing is kept between steps, so a run that is resumed at any step sees the batches that it
would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from plot_exp.data.collate import Batch, collate_padded
from plot_exp.data.tokenise import TokenisedExample


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` examples in one epoch."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator).tolist()


def total_steps(count: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps`, or what `epochs` passes over the examples take."""
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil(round(count * epochs) / batch_size))


class StepLoader:
    """Yields, for each optimizer step that remains, the batch as a list of microbatches.

    Batches run on across the ends of epochs, so no example is left out; without `max_steps` the
    last batch is cut where the last epoch ends.

    Args:
        examples: the training examples.
        first_step: called when iteration starts; the steps already taken.
        rank, processes: which part of every batch is this process's.
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
        self._orders: dict[int, list[int]] = {}

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
        """This process's part of the step's examples: an unbroken run of them."""
        every = self.indices(step)
        start = self.rank * len(every) // self.processes
        return every[start : (self.rank + 1) * len(every) // self.processes]

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            self._orders = {
                known: order for known, order in self._orders.items() if known >= epoch - 1
            }
            self._orders[epoch] = epoch_order(len(self.examples), self.seed, epoch)
        return self._orders[epoch]

    def microbatches(self, step: int) -> list[Batch]:
        """The collated microbatches of one optimizer step."""
        chosen = [self.examples[index] for index in self.own_indices(step)]
        size = self.microbatch_size
        return [
            collate_padded(chosen[start : start + size], self.pad_id)
            for start in range(0, len(chosen), size)
        ]

    def __iter__(self) -> Iterator[list[Batch]]:
        for step in range(self.first_step(), self.steps):
            yield self.microbatches(step)


def evaluation_batches(
    examples: Sequence[TokenisedExample], batch_size: int, pad_id: int
) -> Iterator[Batch]:
    """Batches for scoring without gradients, grouped by length to spare padding."""

    def longest(item: TokenisedExample) -> int:
        return len(item.prompt_ids) + max(len(ids) for ids in item.response_ids)

    ordered = sorted(examples, key=longest)
    for start in range(0, len(ordered), batch_size):
        yield collate_padded(ordered[start : start + batch_size], pad_id)
