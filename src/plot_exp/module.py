"""The LightningModule: policy and reference in, losses and metrics out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from plot_exp.config.schema import OptimizerConfig, TrainerConfig
from plot_exp.data.collate import Batch
from plot_exp.errors import RunError
from plot_exp.losses.composite import Composite
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request, Scores
from plot_exp.training.coupling import Outcome, Part, accumulate
from plot_exp.training.gradients import TermGradientMeter, add_term_gradients
from plot_exp.training.metrics import Throughput, response_metrics, term_metrics

Log = Callable[[Mapping[str, float], int], None]
Validate = Callable[[int], Mapping[str, float]]


class PreferenceModule(pl.LightningModule):
    """Trains a policy on the optimizer's whole batches, given as lists of microbatches.

    Args:
        policy: what is trained.
        reference: scored without gradients, and kept out of the state dict; None where no term
            needs one.
        composite: the weighted loss terms.
        steps: optimizer steps of the run, for the schedule.
        seed: with the step and microbatch it determines all random state of a pass.
        log: receives metrics at log steps.
        validate: called every `trainer.validate_every` steps with the step; its metrics are
            logged with the step's own.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy | None,
        composite: Composite,
        *,
        trainer_config: TrainerConfig,
        optimizer_config: OptimizerConfig,
        steps: int,
        seed: int,
        log: Log,
        validate: Validate | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.composite = composite
        # A tuple hides the reference from state_dict, parameters and checkpoints.
        self._reference = (reference,)
        self.settings = trainer_config
        self.optimizer_settings = optimizer_config
        self.steps = steps
        self.seed = seed
        self._log, self._validate = log, validate
        self.completed_steps = 0
        self.carried: list[Part] | None = None
        self.throughput = Throughput()
        self.latest: dict[str, float] = {}

    @property
    def reference(self) -> Policy | None:
        """The frozen reference, on the policy's device."""
        (reference,) = self._reference
        if reference is not None and reference.device != self.policy.device:
            reference.to(self.policy.device)
        return reference

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on what is trainable, and the schedule over the run's steps."""
        settings = self.optimizer_settings
        optimizer = torch.optim.AdamW(
            self.policy.trainable(),
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.steps, settings)
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, microbatches: list[Batch], batch_idx: int) -> None:
        """One optimizer step."""
        step = self.completed_steps + 1
        logging = step % self.settings.log_every == 0 or step in (1, self.steps)
        meter = self._meter() if logging else None
        optimizer = self.optimizers()
        optimizer.zero_grad()
        outcome = self._accumulate(microbatches, meter)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trainable(), self.settings.gradient_clip)
        self._require_finite(norm, outcome, step)
        learning_rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        self.lr_schedulers().step()
        self.completed_steps = step
        self.carried = outcome.parts if self.settings.coupling == "carried" else None
        self.throughput.add(microbatches)
        metrics: dict[str, Tensor | float] = {}
        if logging:
            metrics |= self._step_metrics(outcome, meter, norm)
            metrics["train/lr"] = learning_rate
            metrics |= self.throughput.read(self.policy.device)
        self._finish_step(metrics, step)

    def _finish_step(self, metrics: dict[str, Tensor | float], step: int) -> None:
        values = {key: float(value) for key, value in metrics.items()}
        every = self.settings.validate_every
        if self._validate is not None and every is not None and step % every == 0:
            started = time.perf_counter()
            values |= self._validate(step)
            self.throughput.leave_out(time.perf_counter() - started)
        if values:
            self._log(values, step)
            shown = ("train/loss", "train/reward_accuracy", "val/reward_accuracy")
            self.latest |= {key: values[key] for key in shown if key in values}

    def _accumulate(self, microbatches: list[Batch], meter: TermGradientMeter | None) -> Outcome:
        weights = self.composite.weights
        reference = self.reference if self.composite.needs_reference else None

        def score_policy(batch: Batch, index: int) -> Scores:
            torch.manual_seed(pass_seed(self.seed, self.completed_steps, index))
            return self.policy(batch, self.composite.request)

        @torch.no_grad()
        def score_reference(batch: Batch) -> Scores:
            assert reference is not None
            return reference(batch, Request())

        def pull_back(outputs: list[Tensor], gradients: dict[str, list[Tensor]]) -> None:
            weighted = {
                name: [weights[name] * gradient for gradient in rows]
                for name, rows in gradients.items()
            }
            if meter is not None:
                meter.add(outputs, weighted)
            torch.autograd.backward(outputs, add_term_gradients(weighted))

        return accumulate(
            microbatches,
            score_policy=score_policy,
            score_reference=score_reference if reference is not None else None,
            composite=self.composite,
            mode=self.settings.coupling,
            carried=self.carried,
            pull_back=pull_back,
        )

    def _meter(self) -> TermGradientMeter | None:
        if not self.settings.log_term_gradients:
            return None
        return TermGradientMeter(self.policy.trainable(), list(self.composite.terms))

    def _step_metrics(
        self, outcome: Outcome, meter: TermGradientMeter | None, norm: Tensor
    ) -> dict[str, Tensor | float]:
        metrics = term_metrics("train", outcome.terms, self.composite.weights)
        metrics |= response_metrics("train", outcome.whole, self.composite.beta)
        metrics["train/grad_norm"] = norm
        if meter is not None:
            metrics |= meter.metrics(self.composite.vanilla)
        return metrics

    def _require_finite(self, norm: Tensor, outcome: Outcome, step: int) -> None:
        if bool(torch.isfinite(norm)):
            return
        named = [
            f"{name} = {float(result.loss):g}"
            for name, result in outcome.terms.items()
            if not bool(torch.isfinite(result.loss))
        ]
        what = f"loss term {', '.join(named)}" if named else "every term is finite"
        raise RunError(
            f"step {step}: the gradient is not finite ({what}); the weights were left as they "
            "were before the step. Lower optimizer.lr or the term's weight, or resume from the "
            "last checkpoint"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counters, so that a resumed run goes on where this one stood."""
        checkpoint["completed_steps"] = self.completed_steps
        checkpoint["carried"] = (
            None if self.carried is None else [part.as_tensors() for part in self.carried]
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the counters back."""
        self.completed_steps = int(checkpoint["completed_steps"])
        if checkpoint["carried"] is not None:
            self.carried = [Part.from_tensors(part) for part in checkpoint["carried"]]


def pass_seed(seed: int, step: int, microbatch: int) -> int:
    """The random state of one forward pass, dropout included."""
    return (seed * 1_000_003 + step) * 4_099 + microbatch


def learning_rate_factor(step: int, steps: int, settings: OptimizerConfig) -> float:
    """The schedule's factor at a 0-based step: linear warm-up, then constant or down to zero."""
    warmup = round(settings.warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if settings.schedule == "linear":
        return 1 - progress
    return 1.0
