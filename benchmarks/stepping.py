"""A run whose optimizer steps are taken one by one, so that two can be timed in turn."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch

from plot_exp.config.composition import compose
from plot_exp.data.collate import Batch
from plot_exp.data.loader import StepLoader
from plot_exp.losses.composite import Composite, build
from plot_exp.models.reference import PolicyStart
from plot_exp.module import PreferenceModule, learning_rate_factor
from plot_exp.progress import shown
from plot_exp.training.optimizer import build_optimizer
from plot_exp.workflows.context import build_context
from plot_exp.workflows.device import autocast
from plot_exp.workflows.measure import Measurer
from plot_exp.workflows.prepare import prepare
from plot_exp.workflows.reference import open_reference, settle_reference


class _Optimizer:
    """What the module asks of Lightning's optimizer, without a trainer behind it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.optimizer.step()


class _Module(PreferenceModule):
    """The module of a run, with optimizer and schedule at hand."""

    def attach(self) -> None:
        optimizer = build_optimizer(self.policy.trainable(), self.optimizer_settings)
        self._own = _Optimizer(optimizer)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.steps, self.optimizer_settings)
        )

    def share(self, other: _Module) -> None:
        self._own, self._schedule = other._own, other._schedule

    def optimizers(self, *_: Any, **__: Any) -> Any:
        return self._own

    def lr_schedulers(self) -> Any:
        return self._schedule


class Stepper:
    """A policy in training, as `task=train` sets it up.

    Args:
        overrides: as on the command line.
        steps: how many there are batches for.
    """

    def __init__(self, overrides: Sequence[str], steps: int) -> None:
        config = compose([*overrides, f"trainer.max_steps={steps}", "trainer.log_every=1000000"])
        prepared = prepare(config, shown)
        self.config, self.policy = config, prepared.start.policy
        opened = open_reference(config, prepared.start)
        prepared.choose_layout(config)
        tokeniser = prepared.start.tokeniser
        context = build_context(config, opened, tokeniser, prepared.train, prepared.layout)
        composite = build(config.loss, context)
        reference = settle_reference(config, opened, prepared, composite, shown)
        context = build_context(config, reference, tokeniser, prepared.train, prepared.layout)
        self.context, self.reference, self.steps = context, reference, steps
        measurer = Measurer(config, prepared, reference, composite, context, shown)
        if isinstance(opened, PolicyStart):
            opened.moved = True
        if config.trainer.activation_checkpointing:
            self.policy.checkpoint_activations()
        self.loader = StepLoader(
            prepared.train,
            batch_size=config.trainer.batch_size,
            microbatch_size=config.trainer.microbatch_size,
            epochs=1,
            max_steps=steps,
            seed=config.seed,
            pad_id=prepared.pad_id,
            layout=prepared.layout,
            group_by_length=config.trainer.group_by_length,
        )
        self.mismatch = measurer.mismatch
        self.module = self._module(composite)
        self.module.attach()
        self.policy.train()

    def _module(self, composite: Composite) -> _Module:
        return _Module(
            self.policy,
            self.reference if composite.needs_reference else None,
            composite,
            trainer_config=self.config.trainer,
            optimizer_config=self.config.optimizer,
            steps=self.steps,
            seed=self.config.seed,
            log=lambda *_: None,
            mismatch=self.mismatch,
        )

    def beside(self, overrides: Sequence[str]) -> Stepper:
        """The same policy, reference and optimizer under another loss, where two do not fit."""
        other = copy.copy(self)
        other.module = self._module(build(compose([*overrides]).loss, self.context))
        other.module.share(self.module)
        return other

    def seconds(self, batches: list[Batch]) -> float:
        """Takes one step on the batches and says how long it took."""
        moved = [batch.to(self.policy.device) for batch in batches]
        _wait()
        started = time.perf_counter()
        with autocast(self.config.trainer, self.policy.device):
            self.module.training_step(moved, 0)
        _wait()
        return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
