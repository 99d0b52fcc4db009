"""Finds numbers that are not finite in the step they appear, and says whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plot_exp.losses.base import TermResult


class FiniteWatch:
    """Notes on the device whether each term's gradients are finite; asked once a step."""

    def __init__(self) -> None:
        self._finite: dict[str, Tensor] = {}

    def see(self, gradients: Mapping[str, Sequence[Tensor]]) -> None:
        """Notes one microbatch's gradients of every term in the score tensors."""
        for name, rows in gradients.items():
            found = torch.stack([torch.isfinite(row).all() for row in rows]).all()
            before = self._finite.get(name)
            self._finite[name] = found if before is None else found & before

    def faults(self, terms: Mapping[str, TermResult], norm: Tensor) -> str:
        """What is not finite, by term, as part of a sentence; empty where all is well.

        Args:
            terms: every term's value in the step.
            norm: of the gradient in the parameters.
        """
        losses = {name: torch.isfinite(result.loss) for name, result in terms.items()}
        # Every process must come to one decision: value and norm are shared, gradients of scores
        # are each process's own.
        everything = [torch.isfinite(norm), *losses.values()]
        if bool(torch.stack([flag.to(norm.device) for flag in everything]).all()):
            return ""
        found = []
        for name, finite in losses.items():
            if not bool(finite):
                found.append(f"loss term {name} = {float(terms[name].loss):g}")
            elif not bool(self._finite.get(name, finite)):
                found.append(f"the gradient of loss term {name} is not finite")
        return ", ".join(found) or (
            f"every loss term and its gradient in the log-probabilities is finite, but the "
            f"gradient in the weights has norm {float(norm):g}"
        )
