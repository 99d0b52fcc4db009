"""The processes that share one optimizer's batch, or the one that has it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from plot_exp.losses.base import TermResult, Totals
from plot_exp.training.part import Part

Item = TypeVar("Item")
Found = TypeVar("Found")
Pace = Callable[[], AbstractContextManager[None]]

# Elements of gradients that are exchanged together: they are copied into one stretch.
BUCKET = 1 << 25


class World:
    """One process alone; `Processes` is the same for several.

    Attributes:
        size, rank: how many processes there are, and which one this is.
        pace: within it processes may call the policies' forward passes as often as each needs;
            outside of it all of them do alike (see `training.lockstep`).
        sums_gradients: the backward pass itself leaves the sum over all processes (FSDP).
    """

    size = 1
    rank = 0
    pace: Pace = nullcontext
    sums_gradients = False

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's items of all, every `size`-th."""
        return items[self.rank :: self.size]

    def map(
        self,
        items: Sequence[Item],
        each: Callable[[Item], Found],
        shown: Callable[[Sequence[Item]], Iterable[Item]] = iter,
    ) -> list[Found]:
        """`each` of every item, in their order; a process does its share of them.

        Args:
            shown: wraps the share, to show how far it has come.
        """
        with self.pace():
            own = [each(item) for item in shown(self.share(items))]
        return self.dealt(own)

    def dealt(self, own: Sequence[Found]) -> list[Found]:
        """What `share(items)` gave in every process, in the order of the items."""
        return list(own)

    def gather_objects(self, items: Sequence[Item]) -> tuple[list[Item], int]:
        """Every process's items in the order of ranks, and where this one's begin."""
        return list(items), 0

    def gather(self, parts: Sequence[Part]) -> tuple[list[Part], int]:
        """The same of parts, on this process's device."""
        return list(parts), 0

    def add_totals(self, totals: Totals) -> Totals:
        """The counts of all processes together."""
        return totals

    def add_results(self, results: dict[str, TermResult], examples: int) -> dict[str, TermResult]:
        """Terms whose values are each process's share of the whole: losses add up.

        Args:
            examples: this process's, by which metrics are averaged.
        """
        return results

    def add_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Adds each tensor over all processes, in place."""

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds the gradients over all processes, in place; a missing one counts as zero."""


class Processes(World):
    """The processes of the default torch.distributed group.

    Args:
        device: where what is exchanged has to lie for the group's backend.
        pace, sums_gradients: see `World`.
    """

    def __init__(
        self, device: torch.device, *, pace: Pace = nullcontext, sums_gradients: bool = False
    ) -> None:
        self.size = dist.get_world_size()
        self.rank = dist.get_rank()
        self.device = device
        self.pace, self.sums_gradients = pace, sums_gradients

    def dealt(self, own: Sequence[Found]) -> list[Found]:
        """See `World`."""
        rows: list[Sequence[Found]] = [()] * self.size
        dist.all_gather_object(rows, list(own))
        count = sum(len(row) for row in rows)
        return [rows[place % self.size][place // self.size] for place in range(count)]

    def gather_objects(self, items: Sequence[Item]) -> tuple[list[Item], int]:
        """See `World`."""
        found: list[list[Item] | None] = [None] * self.size
        dist.all_gather_object(found, list(items))
        rows = [row or [] for row in found]
        return [item for row in rows for item in row], sum(len(row) for row in rows[: self.rank])

    def gather(self, parts: Sequence[Part]) -> tuple[list[Part], int]:
        """See `World`; scores are small beside activations, so they travel whole."""
        found, first = self.gather_objects([part.to("cpu") for part in parts])
        return [part.to(self.device) for part in found], first

    def add_totals(self, totals: Totals) -> Totals:
        """See `World`."""
        found: list[Totals] = [totals] * self.size
        dist.all_gather_object(found, totals)
        return Totals.add(found)

    def add_results(self, results: dict[str, TermResult], examples: int) -> dict[str, TermResult]:
        """See `World`."""
        added = {}
        for name, result in results.items():
            metrics = [examples * value for value in result.metrics.values()]
            weight = torch.full_like(result.loss, examples)
            row = torch.stack([result.loss, weight, *metrics]).detach()
            dist.all_reduce(row)
            means = dict(zip(result.metrics, row[2:] / row[1], strict=True))
            added[name] = replace(result, loss=row[0], metrics=means)
        return added

    def add_tensors(self, tensors: Iterable[Tensor]) -> None:
        """See `World`; an exchange for each precision and stretch of `BUCKET` elements."""
        waiting: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            together = waiting.setdefault(tensor.dtype, [])
            together.append(tensor)
            if sum(one.numel() for one in together) >= BUCKET:
                _add_together(waiting.pop(tensor.dtype))
        for together in waiting.values():
            _add_together(together)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """See `World`; nothing where the backward pass did it."""
        if self.sums_gradients:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self.add_tensors(gradients)


def _add_together(tensors: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, row in zip(
        tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True
    ):
        tensor.copy_(row.view_as(tensor))


def current_world(device: torch.device) -> World:
    """`Processes` where torch.distributed runs with several, else one process alone."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return Processes(device)
    return World()
