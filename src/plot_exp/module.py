"""The LightningModule: policy and reference in, losses and metrics out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from plot_exp.config.schema import OptimizerConfig, TrainerConfig
from plot_exp.data.collate import Batch
from plot_exp.data.mismatched import Mismatch
from plot_exp.errors import RunError
from plot_exp.losses.composite import Composite
from plot_exp.models.policy import Policy, frozen_names
from plot_exp.models.reference import Reference
from plot_exp.ops.scores import Request, Scores
from plot_exp.training.coupling import Outcome, accumulate
from plot_exp.training.finite import FiniteWatch
from plot_exp.training.gradients import GradientShare, TermGradientMeter, add_term_gradients
from plot_exp.training.metrics import Throughput, response_metrics, term_metrics
from plot_exp.training.mismatched import mismatched_log_ratio
from plot_exp.training.part import Part
from plot_exp.training.world import World, current_world

Log = Callable[[Mapping[str, float], int], None]
Validate = Callable[[int], Mapping[str, float]]

SHOWN_SKIPS = 5


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
        mismatch: makes the batches of KTO's extra pass; None where no term needs it.
        validate: called every `trainer.validate_every` steps with the step; its metrics are
            logged with the step's own.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Reference | None,
        composite: Composite,
        *,
        trainer_config: TrainerConfig,
        optimizer_config: OptimizerConfig,
        steps: int,
        seed: int,
        log: Log,
        mismatch: Mismatch | None = None,
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
        self.mismatch = mismatch
        self.completed_steps = self.skipped_steps = 0
        self.shares = {
            name: GradientShare(term)
            for name, term in composite.named_terms()
            if term.gradient_share is not None
        }
        self.carried: list[Part] | None = None
        self.world = World()
        self.throughput = Throughput()
        self.latest: dict[str, float] = {}

    @property
    def reference(self) -> Reference | None:
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

    def on_fit_start(self) -> None:
        """Finds the other processes, if there are any."""
        self.world = current_world(self.policy.device)

    def training_step(self, microbatches: list[Batch], batch_idx: int) -> None:
        """One optimizer step."""
        step = self.completed_steps + 1
        logging = step % self.settings.log_every == 0 or step in (1, self.steps)
        meter = self._meter(step, logging)
        watch = FiniteWatch()
        optimizer = self.optimizers()
        optimizer.zero_grad()
        outcome = self._accumulate(microbatches, meter, watch)
        self.world.add_gradients(self.policy.trainable())
        if meter is not None:
            meter.gather(self.world)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trainable(), self.settings.gradient_clip)
        faults = watch.faults(outcome.terms, norm)
        if faults:
            self._leave_out(step, faults)
            # Without gradients the optimizer moves neither weights nor its own state.
            optimizer.zero_grad(set_to_none=True)
        learning_rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        self.lr_schedulers().step()
        self.completed_steps = step
        if self.settings.coupling == "carried" and not faults:
            self.carried = outcome.parts
        self.throughput.add(microbatches)
        metrics: dict[str, Tensor | float] = {}
        if faults:
            metrics["train/skipped_steps"] = float(self.skipped_steps)
        elif logging:
            metrics |= self._step_metrics(outcome, meter, norm)
            metrics["train/lr"] = learning_rate
            metrics |= self.throughput.read(self.policy.device)
        if not faults and meter is not None:
            self._share_gradients(meter, step)
        self._finish_step(metrics, step)

    def _share_gradients(self, meter: TermGradientMeter, step: int) -> None:
        due = {name: share for name, share in self.shares.items() if share.due(step)}
        norms = meter.norms() if due else {}
        for name, share in due.items():
            share.update(float(norms[self.composite.vanilla]), float(norms[name]))

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

    def _accumulate(
        self, microbatches: list[Batch], meter: TermGradientMeter | None, watch: FiniteWatch
    ) -> Outcome:
        weights = self.composite.weights
        reference = self.reference if self.composite.needs_reference else None

        request = self.composite.request

        def score_policy(batch: Batch, index: int, of_reference: Scores | None) -> Scores:
            place = self.world.rank * len(microbatches) + index
            torch.manual_seed(pass_seed(self.seed, self.completed_steps, place))
            dropped = (
                pass_seed(self.seed, self.completed_steps, 0) if self.settings.dropout else None
            )
            states = None if reference is None else reference.states(of_reference)
            return self.policy(batch, request, dropped, states)

        @torch.no_grad()
        def score_reference(batch: Batch) -> Scores:
            assert reference is not None
            return reference(batch, request.of_reference())

        def pull_back(outputs: list[Tensor], gradients: dict[str, list[Tensor]]) -> None:
            weighted = {
                name: [weights[name] * gradient for gradient in rows]
                for name, rows in gradients.items()
            }
            watch.see(weighted)
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
            world=self.world,
            mismatched=self._mismatched(microbatches),
        )

    def _mismatched(self, microbatches: list[Batch]) -> Tensor | None:
        """What KTO's reference point is made of, with this step's own random state."""
        if not self.composite.needs_mismatched:
            return None
        reference = self.reference
        assert reference is not None
        assert self.mismatch is not None
        seed = pass_seed(self.seed, self.completed_steps, 0)
        torch.manual_seed(seed)
        dropped = seed if self.settings.dropout else None
        return mismatched_log_ratio(
            microbatches,
            self.mismatch,
            lambda batch: self.policy(batch, Request(), dropped),
            lambda batch: reference(batch, Request()),
            self.policy.device,
            self.world,
        )

    def _meter(self, step: int, logging: bool) -> TermGradientMeter | None:
        shared = any(share.due(step) for share in self.shares.values())
        if not shared and not (logging and self.settings.log_term_gradients):
            return None
        return TermGradientMeter(self.policy.trainable(), list(self.composite.terms))

    def _step_metrics(
        self, outcome: Outcome, meter: TermGradientMeter | None, norm: Tensor
    ) -> dict[str, Tensor | float]:
        metrics = term_metrics("train", outcome.terms, self.composite.weights)
        metrics |= response_metrics("train", outcome.whole(self.world), self.composite.beta)
        metrics["train/grad_norm"] = norm
        metrics |= {
            f"train/weight/{name}": share.term.weight for name, share in self.shares.items()
        }
        if meter is not None:
            metrics |= meter.metrics(self.composite.vanilla)
        return metrics

    def _leave_out(self, step: int, faults: str) -> None:
        """Ends the run, or counts and shows a step whose gradient would spoil the weights."""
        self.skipped_steps += 1
        every_step = step == self.steps and self.skipped_steps == step
        if self.settings.on_nonfinite == "stop" or every_step:
            kept = "no step could be taken" if every_step else "the weights are as before the step"
            raise RunError(
                f"step {step}: the loss or its gradient is not finite ({faults}); {kept}. "
                "Lower optimizer.lr or the term's weight, change what makes the term infinite, or "
                "leave such steps out with trainer.on_nonfinite=skip"
            )
        if self.skipped_steps <= SHOWN_SKIPS:
            last = "; further ones are only counted" if self.skipped_steps == SHOWN_SKIPS else ""
            print(f"step {step} left out: {faults}{last}", file=sys.stderr, flush=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counters, so that a resumed run goes on where this one stood."""
        checkpoint["completed_steps"] = self.completed_steps
        checkpoint["skipped_steps"] = self.skipped_steps
        checkpoint["gradient_shares"] = {name: share.state() for name, share in self.shares.items()}
        checkpoint["carried"] = (
            None if self.carried is None else [part.as_tensors() for part in self.carried]
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the counters back."""
        self.completed_steps = int(checkpoint["completed_steps"])
        self.skipped_steps = int(checkpoint["skipped_steps"])
        for name, state in checkpoint["gradient_shares"].items():
            self.shares[name].restore(state)
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
