"""Each term's own gradient in the policy's parameters: its norm, its share, its direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def add_term_gradients(gradients: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
    """The sum over terms of weighted gradients in the score tensors."""
    rows = list(gradients.values())
    return [
        torch.stack(list(column)).sum(0) if len(rows) > 1 else column[0]
        for column in zip(*rows, strict=True)
    ]


class TermGradientMeter:
    """Collects the gradient of every term over the microbatches of one step.

    It measures beside the training pass and changes no number of it; it costs one backward pass
    and one copy of the gradients a term.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], names: Sequence[str]) -> None:
        self.parameters = list(parameters)
        self.collected: dict[str, list[Tensor | None]] = {
            name: [None] * len(self.parameters) for name in names
        }

    def add(self, outputs: Sequence[Tensor], gradients: Mapping[str, Sequence[Tensor]]) -> None:
        """Adds one microbatch's gradients; the outputs' graph is kept for the training pass."""
        for name, rows in gradients.items():
            found = torch.autograd.grad(
                outputs, self.parameters, rows, retain_graph=True, allow_unused=True
            )
            kept = self.collected[name]
            for place, gradient in enumerate(found):
                if gradient is not None:
                    before = kept[place]
                    kept[place] = gradient if before is None else before + gradient

    def metrics(self, vanilla: str) -> dict[str, Tensor | float]:
        """Norm, share of the vanilla term's norm, and cosine with it, of the weighted terms."""
        norms = {name: self._dot(name, name).sqrt() for name in self.collected}
        metrics: dict[str, Tensor | float] = {}
        for name, norm in norms.items():
            metrics[f"train/grad_norm/{name}"] = norm
            if name != vanilla:
                metrics[f"train/grad_share/{name}"] = norm / norms[vanilla]
                cosine = self._dot(name, vanilla) / (norm * norms[vanilla])
                metrics[f"train/grad_cosine/{name}"] = cosine
        return metrics

    def _dot(self, first: str, second: str) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.parameters[0].device)
        for one, other in zip(self.collected[first], self.collected[second], strict=True):
            if one is not None and other is not None:
                total += (one.double() * other.double()).sum()
        return total
