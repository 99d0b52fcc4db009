"""Steps whose numbers are not finite move no weight, and are named, without a read in every step.

The optimizer is given a flag that stays on the device (`found_inf`, the one that loss scaling
uses): where it is set, its kernel leaves weights and moments as they are. What was not finite is
noted on the device too, a few numbers a step, and read when something is read anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plot_exp.losses.base import TermResult


class FiniteWatch:
    """Notes a row of numbers a step; `read` says which steps were at fault, and whose fault it was.

    Args:
        names: the loss terms, in their order.
        sticky: a step at fault holds back every later one until it is read.
    """

    def __init__(self, names: Sequence[str], *, sticky: bool = False) -> None:
        self.names = list(names)
        self.sticky = sticky
        self._finite: dict[str, Tensor] = {}
        self._rows: list[Tensor] = []
        self._steps: list[int] = []
        self._held: Tensor | None = None

    def see(self, gradients: Mapping[str, Sequence[Tensor]]) -> None:
        """Notes one microbatch's gradients of every term in the score tensors."""
        for name, rows in gradients.items():
            found = torch.stack([torch.isfinite(row).all() for row in rows]).all()
            before = self._finite.get(name)
            self._finite[name] = found if before is None else found & before

    def forget(self) -> None:
        """Drops what was noted of a step that is taken again."""
        self._finite = {}

    def close(self, step: int, terms: Mapping[str, TermResult], norm: Tensor) -> Tensor:
        """Ends a step.

        Args:
            terms: every term's value in the step.
            norm: of the gradient in the parameters.

        Returns:
            fp32 scalar on the device: 1 where the step must not move the weights, else 0.
        """
        shared = [norm, *(terms[name].loss for name in self.names)]
        values = torch.stack([value.detach().to(norm.device, torch.float64) for value in shared])
        yes = torch.ones((), dtype=torch.bool, device=norm.device)
        flags = torch.stack([self._finite.get(name, yes) for name in self.names])
        self._rows.append(torch.cat([values, flags.to(values)]))
        self._steps.append(step)
        self._finite = {}
        # Every process must come to one decision: value and norm are shared, gradients of scores
        # are each process's own.
        fault = ~torch.isfinite(values).all()
        if self.sticky:
            fault = fault if self._held is None else fault | self._held
            self._held = fault
        return fault.float()

    def read(self) -> dict[int, str]:
        """The steps at fault since the last reading, each with what was not finite in it."""
        if not self._rows:
            return {}
        rows = torch.stack(self._rows).tolist()
        found = {
            step: self._fault(row)
            for step, row in zip(self._steps, rows, strict=True)
            if not all(map(math.isfinite, row))
        }
        self._rows, self._steps = [], []
        return found

    def _fault(self, row: Sequence[float]) -> str:
        """What is not finite, by term, as part of a sentence."""
        norm, losses, flags = row[0], row[1 : 1 + len(self.names)], row[1 + len(self.names) :]
        found = []
        for name, loss, finite in zip(self.names, losses, flags, strict=True):
            if not math.isfinite(loss):
                found.append(f"loss term {name} = {loss:g}")
            elif not finite:
                found.append(f"the gradient of loss term {name} is not finite")
        return ", ".join(found) or (
            f"every loss term and its gradient in the log-probabilities is finite, but the "
            f"gradient in the weights has norm {norm:g}"
        )
