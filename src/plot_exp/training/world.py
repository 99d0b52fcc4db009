"""The processes that share one optimizer's batch, or the one that has it all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from plot_exp.losses.base import TermResult, Totals
from plot_exp.training.part import Part

Item = TypeVar("Item")


class World:
    """One process alone; `Processes` is the same for several.

    Attributes:
        size, rank: how many processes there are, and which one this is.
    """

    size = 1
    rank = 0

    def gather_objects(self, items: Sequence[Item]) -> tuple[list[Item], int]:
        """Every process's items in the order of ranks, and where this one's begin."""
        return list(items), 0

    def gather(self, parts: Sequence[Part]) -> tuple[list[Part], int]:
        """The same of parts, on this process's device."""
        return list(parts), 0

    def add_totals(self, totals: Totals) -> Totals:
        """The counts of all processes together."""
        return totals

    def add_results(self, results: dict[str, TermResult]) -> dict[str, TermResult]:
        """Terms whose values are each process's share of the whole: losses add up."""
        return results

    def add_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Adds each tensor over all processes, in place."""

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds the gradients over all processes, in place; a missing one counts as zero."""


class Processes(World):
    """The processes of the default torch.distributed group.

    Args:
        device: where what is exchanged has to lie for the group's backend.
    """

    def __init__(self, device: torch.device) -> None:
        self.size = dist.get_world_size()
        self.rank = dist.get_rank()
        self.device = device

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

    def add_results(self, results: dict[str, TermResult]) -> dict[str, TermResult]:
        """See `World`; metrics are averaged over processes."""
        added = {}
        for name, result in results.items():
            row = torch.stack([result.loss, *result.metrics.values()]).detach()
            dist.all_reduce(row)
            metrics = dict(zip(result.metrics, row[1:] / self.size, strict=True))
            added[name] = replace(result, loss=row[0], metrics=metrics)
        return added

    def add_tensors(self, tensors: Iterable[Tensor]) -> None:
        """See `World`; one exchange for each precision."""
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for together in by_type.values():
            flat = torch.cat([tensor.flatten() for tensor in together])
            dist.all_reduce(flat)
            for tensor, row in zip(
                together, flat.split([tensor.numel() for tensor in together]), strict=True
            ):
                tensor.copy_(row.view_as(tensor))

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """See `World`."""
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self.add_tensors(gradients)


def current_world(device: torch.device) -> World:
    """`Processes` where torch.distributed runs with several, else one process alone."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return Processes(device)
    return World()
