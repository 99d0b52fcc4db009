"""The LightningModule: policy and reference in, losses and metrics out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from plot_exp.config.schema import OptimizerConfig, TrainerConfig
from plot_exp.data.collate import Batch
from plot_exp.data.mismatched import Mismatch
from plot_exp.errors import RunError
from plot_exp.losses.base import Totals
from plot_exp.losses.composite import Composite
from plot_exp.models.parts import whole
from plot_exp.models.policy import Policy, frozen_names
from plot_exp.models.reference import Reference
from plot_exp.training.average import averaged, named_averages, swap_average
from plot_exp.training.coupling import Outcome, accumulate
from plot_exp.training.faults import Faults
from plot_exp.training.finite import FiniteWatch
from plot_exp.training.gradients import (
    GradientShare,
    PartsGradientMeter,
    TermGradientMeter,
    add_term_gradients,
)
from plot_exp.training.metrics import (
    Throughput,
    read_together,
    response_metrics,
    term_metrics,
)
from plot_exp.training.optimizer import build_optimizer, learning_rate_factor
from plot_exp.training.out_of_memory import Collate, SmallerSteps
from plot_exp.training.part import Part
from plot_exp.training.passes import Passes
from plot_exp.training.retention import save_now
from plot_exp.training.sharding import in_its_parts
from plot_exp.training.world import World, current_world

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
        mismatch: makes the batches of KTO's extra pass; None where no term needs it.
        validate: called every `trainer.validate_every` steps with the step; its metrics are
            logged with the step's own.
        collate: lays examples out anew where memory ran out for a microbatch; None never does.
        world: the processes that share the batch; None finds them when training begins.
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
        collate: Collate | None = None,
        world: World | None = None,
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
        self.completed_steps = 0
        self.shares = {
            name: GradientShare(term)
            for name, term in composite.named_terms()
            if term.gradient_share is not None
        }
        self.carried: list[Part] | None = None
        self.world, self._finds_world = world or World(), world is None
        self.drops = policy.drops
        self.watch = FiniteWatch(
            list(composite.terms), sticky=trainer_config.on_nonfinite == "stop"
        )
        # Frozen weights are not in the checkpoints.
        self.strict_loading = False
        self.throughput = Throughput()
        self.latest: dict[str, float] = {}
        self.faults = Faults(self.watch, trainer_config, steps, log)
        scored = [policy, reference] if isinstance(reference, Policy) else [policy]
        self.smaller = SmallerSteps(composite, scored, trainer_config.coupling, collate)

    @property
    def reference(self) -> Reference | None:
        """The frozen reference, on the policy's device."""
        (reference,) = self._reference
        if reference is not None and reference.device != self.policy.device:
            reference.to(self.policy.device)
        return reference

    @property
    def skipped_steps(self) -> int:
        """Steps that were left out, since they were not finite."""
        return self.faults.skipped

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on what is trainable, and the schedule over the run's steps."""
        settings = self.optimizer_settings
        in_its_parts(self.policy)
        optimizer = build_optimizer(self.policy.trainable(), settings)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.steps, settings)
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def configure_model(self) -> None:
        """Nothing: a policy that is to lie in parts does so before it is first measured."""

    def on_fit_start(self) -> None:
        """Finds the other processes, if there are any."""
        if self._finds_world:
            self.world = current_world(self.policy.device)

    def transfer_batch_to_device(
        self, batch: list[Batch], device: torch.device, dataloader_idx: int
    ) -> list[Batch]:
        """Leaves it where it is: `training_step` counts on the CPU, where nothing waits."""
        return batch

    def training_step(self, microbatches: list[Batch], batch_idx: int) -> None:
        """One optimizer step; between log steps nothing is read from the device."""
        step = self.completed_steps + 1
        logging = step % self.settings.log_every == 0 or step in (1, self.steps)
        optimizer = self.optimizers()
        outcome, meter = self._gradients(microbatches, step, logging)
        parameters = optimizer.param_groups[0]["params"]
        self.world.add_gradients(parameters)
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip))
        optimizer.optimizer.found_inf = self.watch.close(step, outcome.terms, norm)
        learning_rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        self.lr_schedulers().step()
        self.completed_steps = step
        self.throughput.add(microbatches)
        metrics: dict[str, Tensor | float] = {}
        left_out = self._reads(step, meter, logging) and self._read_faults()
        if not left_out:
            if meter is not None:
                meter.gather(self.world)
            if self.settings.coupling == "carried":
                self.carried = outcome.parts
            if logging:
                metrics |= self._step_metrics(outcome, meter, norm)
                metrics["train/lr"] = learning_rate
                metrics |= self.throughput.read(self.policy.device, self.world)
            if meter is not None:
                self._share_gradients(meter, step)
        self._finish_step(metrics, step)

    def _gradients(
        self, microbatches: list[Batch], step: int, logging: bool
    ) -> tuple[Outcome, TermGradientMeter | None]:
        """Takes the step up to its gradients, in smaller pieces where memory runs out."""

        def attempt(pieces: list[Batch]) -> tuple[Outcome, TermGradientMeter | None]:
            self.optimizers().zero_grad()
            meter = self._meter(step, logging)
            return self._accumulate(pieces, meter), meter

        def forget(cut: bool) -> None:
            self.optimizers().zero_grad()
            self.watch.forget()
            if cut:  # the last step's parts no longer have this step's places
                self.carried = None

        if self.world.size > 1:  # the others are already waiting for this one
            return attempt(microbatches)
        return self.smaller.take(
            step, microbatches, attempt, forget, save=lambda: save_now(self.trainer)
        )

    def _reads(self, step: int, meter: TermGradientMeter | None, logging: bool) -> bool:
        """Whether this step waits for the device to hear of steps at fault."""
        every = self.settings.validate_every
        validating = every is not None and step % every == 0
        # What a step at fault leaves behind must not be carried into the next one.
        carrying = self.settings.coupling == "carried" and self.settings.on_nonfinite == "skip"
        return logging or meter is not None or validating or carrying

    def _read_faults(self) -> bool:
        """Whether the last step is among those left out; see `Faults.read`."""
        return self.completed_steps in self.faults.read()

    def _share_gradients(self, meter: TermGradientMeter, step: int) -> None:
        due = {name: share for name, share in self.shares.items() if share.due(step)}
        norms = read_together(meter.norms()) if due else {}
        for name, share in due.items():
            scheduled = share.term.scheduled(step, self.steps)
            share.update(norms[self.composite.vanilla], norms[name], scheduled)

    def _finish_step(self, metrics: dict[str, Tensor | float], step: int) -> None:
        values = read_together(metrics)
        every = self.settings.validate_every
        if self._validate is not None and every is not None and step % every == 0:
            started = time.perf_counter()
            with averaged(self.optimizers().optimizer):
                values |= self._validate(step)
            self.throughput.leave_out(time.perf_counter() - started)
        if values:
            self._log(values, step)
            shown = ("train/loss", "train/reward_accuracy", "val/reward_accuracy")
            self.latest |= {key: values[key] for key in shown if key in values}

    def _accumulate(self, microbatches: list[Batch], meter: TermGradientMeter | None) -> Outcome:
        counts = [Totals.of([batch.responses]) for batch in microbatches if not batch.idle]
        device = self.policy.device
        microbatches = [batch.to(device, non_blocking=True) for batch in microbatches]
        weights = self._weights(self.completed_steps + 1)
        passes = Passes(
            self.policy,
            self.reference if self.composite.needs_reference else None,
            self.composite.request,
            drops=self.drops,
            seed=self.seed,
            step=self.completed_steps,
            first=self.world.rank * len(microbatches),
        )

        def pull_back(outputs: list[Tensor], gradients: dict[str, list[Tensor]]) -> None:
            weighted = {
                name: rows if weights[name] == 1 else [weights[name] * row for row in rows]
                for name, rows in gradients.items()
            }
            self.watch.see(weighted)
            if meter is not None:
                meter.add(outputs, weighted)
            torch.autograd.backward(outputs, add_term_gradients(weighted))

        mismatched = None
        if self.composite.needs_mismatched and self.mismatch is not None:
            own = [batch for batch in microbatches if not batch.idle]
            mismatched = passes.mismatched(own, self.mismatch, self.world)
        return accumulate(
            microbatches,
            score_policy=passes.score_policy,
            score_reference=None if passes.reference is None else passes.score_reference,
            composite=self.composite,
            mode=self.settings.coupling,
            carried=self.carried,
            pull_back=pull_back,
            world=self.world,
            counts=counts,
            mismatched=mismatched,
        )

    def _weights(self, step: int) -> dict[str, float]:
        return self.composite.weights_at(step, self.steps)

    def _meter(self, step: int, logging: bool) -> TermGradientMeter | None:
        shared = any(share.due(step) for share in self.shares.values())
        if not shared and not (logging and self.settings.log_term_gradients):
            return None
        names = list(self.composite.terms)
        if self.world.sums_gradients:
            return PartsGradientMeter(
                self.optimizers().param_groups[0]["params"], names, self.world
            )
        return TermGradientMeter(self.policy.trainable(), names)

    def _step_metrics(
        self, outcome: Outcome, meter: TermGradientMeter | None, norm: Tensor
    ) -> dict[str, Tensor | float]:
        weights = self._weights(self.completed_steps)
        metrics = term_metrics("train", outcome.terms, weights)
        metrics |= response_metrics("train", outcome.whole(self.world), self.composite.beta)
        metrics["train/grad_norm"] = norm
        metrics |= {
            f"train/weight/{name}": weights[name]
            for name, term in self.composite.named_terms()
            if name in self.shares or term.schedule != "constant"
        }
        if meter is not None:
            metrics |= meter.metrics(self.composite.vanilla)
        return metrics

    def on_fit_end(self) -> None:
        """Leaves the average in the weights' place, where one is kept; checkpoints have both.

        Called too where a resumed run has no step left, unlike `on_train_end`.
        """
        swap_average(self.optimizers().optimizer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counters, so that a resumed run goes on where this one stood.

        Frozen weights are left out: the run's start has them.
        """
        self._read_faults()
        for name in frozen_names(self.policy):
            checkpoint["state_dict"].pop(f"policy.{name}", None)
        averages = named_averages(self.policy, self.optimizers().optimizer)
        if averages and not any(isinstance(one, DTensor) for one in averages.values()):
            # The tensors of the optimizer's state, which are written once.
            checkpoint["averages"] = {f"policy.{name}": one for name, one in averages.items()}
        checkpoint["completed_steps"] = self.completed_steps
        checkpoint["skipped_steps"] = self.faults.skipped
        checkpoint["gradient_shares"] = {name: share.state() for name, share in self.shares.items()}
        checkpoint["carried"] = (
            None if self.carried is None else [part.as_tensors() for part in self.carried]
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the counters back.

        Raises:
            RunError: the checkpoint is of other weights.
        """
        frozen = {f"policy.{name}" for name in frozen_names(self.policy)}
        # Of weights in parts the strategy has read what the policy lacks, or has failed.
        state = checkpoint.get("state_dict")
        if state is not None and (lost := sorted(self.state_dict().keys() - frozen ^ state.keys())):
            raise RunError(f"the checkpoint does not fit the model: {lost[0]} differs")
        self.completed_steps = int(checkpoint["completed_steps"])
        self.faults.skipped = int(checkpoint["skipped_steps"])
        for name, state in checkpoint["gradient_shares"].items():
            self.shares[name].restore(state)
        if checkpoint["carried"] is not None:
            self.carried = [Part.from_tensors(part) for part in checkpoint["carried"]]
