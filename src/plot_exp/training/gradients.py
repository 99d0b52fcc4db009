"""Each term's own gradient in the policy's parameters: its norm, its share, its direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from plot_exp.losses.base import Term
from plot_exp.models.parts import local
from plot_exp.training.world import World


def add_term_gradients(gradients: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
    """The sum over terms of weighted gradients in the score tensors."""
    return [reduce(torch.add, column) for column in zip(*gradients.values(), strict=True)]


class GradientShare:
    """Holds a term's gradient at a share of another's by setting the term's weight.

    weight = share · m(‖∇ other‖) / m(‖∇ term‖) with m the exponential mean over measurements,
    taken at the first step and then every few steps. A measured step costs one more backward pass
    and one more copy of the gradients a term; the first step is taken with the weight as given.

    Args:
        term: has `gradient_share`; its weight is set.
    """

    DECAY = 0.9

    def __init__(self, term: Term) -> None:
        assert term.gradient_share is not None
        self.term = term
        self.share = term.gradient_share
        self.means: tuple[float, float] | None = None

    def due(self, step: int) -> bool:
        """Whether the norms of this 1-based step are to be measured."""
        return step == 1 or step % self.term.gradient_share_every == 0

    def update(self, other: float, weighted: float, scheduled: float = 1.0) -> None:
        """Takes in one measurement: both norms as the weighted terms had them in the step.

        The share is held apart from the schedule, whose part at that step is `scheduled`.
        """
        own = weighted / (self.term.weight * scheduled)
        if self.means is None:
            self.means = (other, own)
        else:
            keep = self.DECAY
            self.means = (
                keep * self.means[0] + (1 - keep) * other,
                keep * self.means[1] + (1 - keep) * own,
            )
        # A term at its minimum has no gradient to scale, and another term none to compare with.
        if min(self.means) > 0:
            self.term.weight = self.share * self.means[0] / self.means[1]

    def state(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return {"means": self.means, "weight": self.term.weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.means = None if state["means"] is None else tuple(state["means"])
        self.term.weight = float(state["weight"])


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

    def gather(self, world: World) -> None:
        """Adds what the other processes collected."""
        if world.size == 1:
            return
        for rows in self.collected.values():
            for place, gradient in enumerate(rows):
                if gradient is None:
                    rows[place] = torch.zeros_like(self.parameters[place])
            world.add_tensors([gradient for gradient in rows if gradient is not None])

    def metrics(self, vanilla: str) -> dict[str, Tensor | float]:
        """Norm, share of the vanilla term's norm, and cosine with it, of the weighted terms."""
        norms = self.norms()
        metrics: dict[str, Tensor | float] = {}
        for name, norm in norms.items():
            metrics[f"train/grad_norm/{name}"] = norm
            if name != vanilla:
                metrics[f"train/grad_share/{name}"] = norm / norms[vanilla]
                cosine = self._dot(name, vanilla) / (norm * norms[vanilla])
                metrics[f"train/grad_cosine/{name}"] = cosine
        return metrics

    def norms(self) -> dict[str, Tensor]:
        """The norm of each weighted term's gradient in the parameters."""
        return {name: self._dot(name, name).sqrt() for name in self.collected}

    def _dot(self, first: str, second: str) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.parameters[0].device)
        for one, other in zip(self.collected[first], self.collected[second], strict=True):
            if one is not None and other is not None:
                total += (one.double() * other.double()).sum()
        return total


class PartsGradientMeter(TermGradientMeter):
    """The same for a policy whose weights lie in parts: whole backward passes leave the gradients.

    Args:
        world: the processes that have the parts.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], names: Sequence[str], world: World
    ) -> None:
        super().__init__(parameters, names)
        self.world = world

    def add(self, outputs: Sequence[Tensor], gradients: Mapping[str, Sequence[Tensor]]) -> None:
        """See `TermGradientMeter`; gradients of the training passes so far are put back."""
        before = [parameter.grad for parameter in self.parameters]
        for name, rows in gradients.items():
            for parameter in self.parameters:
                parameter.grad = None
            torch.autograd.backward(outputs, rows, retain_graph=True)
            kept = self.collected[name]
            for place, parameter in enumerate(self.parameters):
                if parameter.grad is not None:
                    own, earlier = local(parameter.grad), kept[place]
                    kept[place] = own if earlier is None else earlier + own
        for parameter, gradient in zip(self.parameters, before, strict=True):
            parameter.grad = gradient

    def gather(self, world: World) -> None:
        """Nothing: the backward passes did it."""

    def _dot(self, first: str, second: str) -> Tensor:
        total = super()._dot(first, second)
        self.world.add_tensors([total])
        return total
