"""The run's own training step, told to a ledger instead of a trainer and a log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from plot_exp.config.schema import Config, OptimizerConfig
from plot_exp.losses.composite import Composite
from plot_exp.models.policy import Policy
from plot_exp.models.reference import Reference
from plot_exp.module import PreferenceModule
from plot_exp.planner.devices import Devices
from plot_exp.planner.ledger import Ledger
from plot_exp.planner.states import make_states
from plot_exp.training.gradients import TermGradientMeter
from plot_exp.training.world import BUCKET, World


class RehearsedModule(PreferenceModule):
    """The run's own training step, without a trainer around it and without reading a number."""

    ledger: Ledger

    def attach(self, ledger: Ledger) -> None:
        """Makes the optimizer, and says who books."""
        self.ledger = ledger
        self._own = torch.optim.AdamW(self.policy.trainable())

    def make_states(self) -> None:
        """The optimizer's states, as every step but the first finds them."""
        with self.ledger.booking("optimizer"):
            make_states(self._own, self.optimizer_settings)

    def optimizers(self, *_: Any, **__: Any) -> Any:
        return _Optimizer(self._own, self.ledger, self.optimizer_settings)

    def lr_schedulers(self) -> Any:
        return _Nothing()

    def _read_faults(self) -> bool:
        return False

    def _meter(self, step: int, logging: bool) -> TermGradientMeter | None:
        """A step that logs, which every run begins with and comes back to."""
        meter = super()._meter(step, logging)
        return None if meter is None else _Meter(meter, self.ledger)

    def _step_metrics(self, outcome: Any, meter: Any, norm: Tensor) -> dict[str, Any]:
        if meter is not None:
            with self.ledger.booking("gradients by term"):
                meter.metrics(self.composite.vanilla)
        return {}

    def _share_gradients(self, meter: Any, step: int) -> None:
        if meter is not None:
            meter.norms()

    def _finish_step(self, metrics: Any, step: int) -> None:
        """Nothing is logged."""


class _Meter(TermGradientMeter):
    """The run's own, telling the ledger when it goes back and what it keeps."""

    def __init__(self, meter: TermGradientMeter, ledger: Ledger) -> None:
        super().__init__(meter.parameters, list(meter.collected))
        self.ledger = ledger

    def add(self, outputs: Any, gradients: Any) -> None:
        with self.ledger.within("gradients by term"):
            super().add(outputs, gradients)
        for kept in self.collected.values():
            for gradient in kept:
                if gradient is not None:
                    self.ledger.book(gradient, "gradients by term")


class _Nothing:
    def step(self) -> None:
        """No schedule moves."""


class _Optimizer:
    """What the module asks of Lightning's optimizer; its step makes the states and no more."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, ledger: Ledger, settings: OptimizerConfig
    ) -> None:
        self.optimizer, self.ledger, self.settings = optimizer, ledger, settings
        self.param_groups = optimizer.param_groups

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.ledger.enter("optimizer", "optimizer")
        make_states(self.optimizer, self.settings)
        self.ledger.enter("after the optimizer", "activations")


def rehearsed_module(
    config: Config,
    devices: Devices,
    policy: Policy,
    reference: Reference | None,
    composite: Composite,
    ledger: Ledger,
) -> RehearsedModule:
    """The module as a step of the run has it, its optimizer without states yet."""
    module = RehearsedModule(
        policy,
        reference if composite.needs_reference else None,
        composite,
        trainer_config=config.trainer,
        optimizer_config=config.optimizer,
        steps=1_000_000,
        seed=0,
        log=lambda *_: None,
        world=_Several() if devices.count > 1 and not devices.sharded else World(),
    )
    module.attach(ledger)
    return module


class _Several(World):
    """Processes that have the whole policy each: gradients travel in stretches."""

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        waiting: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                continue
            waiting.append(parameter.grad)
            if sum(one.numel() for one in waiting) >= BUCKET:
                torch.cat([one.flatten() for one in waiting])
                waiting = []
