"""An exponential moving average of the trained weights, kept with the optimizer's moments.

It lies in the optimizer's state, so that checkpoints hold it, a resumed run goes on with it, and
weights in parts on several devices have theirs in the same parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from plot_exp.errors import UserError

KEY = "average"


class WeightAverage:
    """After every step: average ← decay · average + (1 − decay) · weights.

    It begins at the weights before the first step, and stays where a step was held back
    (`found_inf`, see `finite`), which is not read from the device for it.

    Args:
        optimizer: of the weights.
        decay: of the average.

    Raises:
        UserError: weights of half precision, in which such small changes round away.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.decay = decay
        self._start: list[Tensor] = []
        coarse = [one.dtype for one in _parameters(optimizer) if one.dtype.itemsize < 4]
        if coarse:
            raise UserError(
                f"optimizer.ema={decay}: the trained weights are {str(coarse[0])[6:]}, in which "
                "the average's small changes round away; write model.dtype=float32 and "
                "trainer.precision=bf16-mixed, or leave optimizer.ema out"
            )
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not has_average(optimizer):
            self._start = [one.detach().clone() for one in _parameters(optimizer)]

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        starts, self._start = self._start, []
        held = getattr(optimizer, "found_inf", None)
        share: Tensor | float = 1 - self.decay
        for place, parameter in enumerate(_parameters(optimizer)):
            state = optimizer.state.get(parameter)
            if not state:  # it has not moved yet
                continue
            if KEY not in state:
                state[KEY] = starts[place] if starts else parameter.detach().clone()
            moved = (parameter.detach() - state[KEY]) * share
            state[KEY] += moved if held is None else torch.where(held > 0, 0.0, moved)


def has_average(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an average is kept, which begins with the first step."""
    return any(KEY in state for state in optimizer.state.values())


@torch.no_grad()
def swap_average(optimizer: torch.optim.Optimizer) -> None:
    """Lets weights and average change places, one tensor at a time."""
    for parameter in _parameters(optimizer):
        kept = optimizer.state.get(parameter, {}).get(KEY)
        if kept is not None:
            moving = parameter.detach().clone()
            parameter.copy_(kept)
            kept.copy_(moving)


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The average in the weights' place, where there is one."""
    swap_average(optimizer)
    try:
        yield
    finally:
        swap_average(optimizer)


def named_averages(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The averages by the names of their weights; empty where none is kept."""
    named = model.named_parameters()
    states = {name: optimizer.state.get(parameter, {}) for name, parameter in named}
    return {name: state[KEY] for name, state in states.items() if KEY in state}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
