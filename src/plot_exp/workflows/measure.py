"""Measures the policy of one run: before, at validations, and after."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plot_exp.config.losses import PLOTConfig
from plot_exp.config.schema import Config
from plot_exp.data.collate import Batch
from plot_exp.data.mismatched import Mismatch
from plot_exp.evals import quick
from plot_exp.evals.faithfulness import faithfulness
from plot_exp.evals.preferences import (
    RememberedReference,
    ScoredExample,
    preference_metrics,
    reward_quantiles,
    score_examples,
)
from plot_exp.evals.transport import distance, summed_distribution
from plot_exp.files import write_text
from plot_exp.generators.base import Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.losses.base import Totals
from plot_exp.losses.composite import Composite
from plot_exp.losses.context import Context
from plot_exp.losses.plot import PLOT
from plot_exp.models.policy import Policy
from plot_exp.models.reference import Reference
from plot_exp.ops.scores import Request, Scores
from plot_exp.progress import Bar, silent
from plot_exp.tracking import Tracker
from plot_exp.training.mismatched import mismatched_log_ratio
from plot_exp.workflows.prepare import Prepared
from plot_exp.workflows.shared_generator import SharedGenerator

VALIDATION_PROMPTS = 7


@dataclass(frozen=True)
class Measurement:
    """Numbers, answers, and the mean token distribution [V] over held-out chosen responses."""

    answers: quick.Result
    metrics: dict[str, float]
    distribution: Tensor | None


class Measurer:
    """Holds what every measurement of a run shares.

    Attributes:
        mismatch: makes the batches of KTO's extra pass.
        common: PLOT with the defaults, the same measure for every run whatever its loss; None
            without both sides.
        plot: PLOT with the run's own settings, or `common` where the loss has no such term.
    """

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        reference: Reference,
        composite: Composite,
        context: Context,
        bar: Bar,
    ) -> None:
        self.config, self.prepared = config, prepared
        self.world = prepared.start.devices.world
        self.reference = RememberedReference(reference)
        self.composite, self.context, self.bar = composite, context, bar
        size = config.trainer.validation_batch_size
        self.batches = list(prepared.batches(prepared.validation, size))
        self.mismatch = Mismatch(prepared.collate, config.dataset.max_length)
        self.asked = config.eval.name != "none"
        count = config.eval.generations if self.asked else 0
        self.prompts = quick.spread_over_categories(prepared.validation, count)
        self.sampling = Sampling(max_new_tokens=config.eval.max_new_tokens)
        self.common = self._common()
        term = dict(composite.terms).get("plot")
        self.plot = term if isinstance(term, PLOT) else self.common

    def _common(self) -> PLOT | None:
        counts = self.context.token_counts()
        if not counts.chosen_responses or not counts.rejected_responses:
            return None
        try:
            return PLOT(PLOTConfig(), self.context)
        except ValueError:
            # Data whose sides use every token equally often have no such distribution.
            return None

    def _generator(self, policy: Policy) -> LocalGenerator:
        return SharedGenerator(
            policy,
            self.prepared.start.tokeniser,
            batch_size=self.config.eval.batch_size,
            max_prompt=self.config.dataset.max_length,
            world=self.world,
        )

    def measure(self, policy: Policy) -> Measurement:
        """Everything that `eval` asks for."""
        metrics: dict[str, float] = {}
        distribution = None
        if self.asked and self.config.eval.preferences and self.batches:
            scored = self.world.map(
                self.batches,
                lambda batch: score_examples(policy, self.reference, [batch]),
                partial(self.bar, label=quick.SCORING),
            )
            metrics |= quick.preference_numbers(list(chain(*scored)), self.composite.beta)
            if self.common is not None:
                distribution = self._mean_distribution(policy)
                metrics["val/transport_distance"] = distance(self.common, distribution)
                metrics |= self._transport(distribution)
        answers = quick.Result(metrics, [], [], [])
        if self.prompts:
            answers = quick.evaluate_answers(
                policy,
                self.reference.reference,
                self.prompts,
                self._generator(policy),
                self.sampling,
                self.bar,
            )
            metrics |= answers.metrics
        return Measurement(answers, metrics, distribution)

    def _mean_distribution(self, policy: Policy) -> Tensor:
        """[V] the softmax averaged over all held-out chosen response positions."""
        with self.world.pace():
            own = self.world.share(self.batches)
            total = summed_distribution(policy, own, "chosen").to(policy.device)
        self.world.add_tensors([total])
        return (total / total.sum()).cpu()

    def validate(self, policy: Policy) -> dict[str, float]:
        """What is logged during training: the loss terms, accuracies, margins, quantiles, lengths.

        Sums over examples are taken over the whole split; coupled terms, and what terms report of
        themselves, are the mean over validation batches.
        """
        if not self.batches:
            return {}
        weights = self.composite.weights
        totals = replace(
            Totals.of([batch.responses for batch in self.batches]),
            mismatched=self._mismatched(policy),
        )
        masses: list[Tensor] = []

        def scored_batch(batch: Batch) -> tuple[list[ScoredExample], dict[str, float]]:
            numbers: dict[str, float] = {}

            def add_terms(batch: Batch, found: Scores, reference: Scores) -> None:
                if ("chosen", "batch") in found.distributions:
                    masses.append(found.distributions[("chosen", "batch")])
                numbers.update(self._terms(batch, found, reference, totals))

            request = self.composite.request
            return score_examples(policy, self.reference, [batch], request, add_terms), numbers

        batches = self.world.map(self.batches, scored_batch)
        scored = list(chain.from_iterable(own for own, _ in batches))
        found = preference_metrics(scored, self.composite.beta, intervals=False)
        found |= reward_quantiles(scored, self.composite.beta)
        for key in batches[0][1]:
            found[key] = sum(numbers[key] for _, numbers in batches)
        found["loss"] = sum(weights[name] * found[f"loss/{name}"] for name in weights)
        metrics = {f"val/{key}": value for key, value in found.items()}
        return metrics | self._transport(self._whole_mass(masses))

    def _terms(
        self, batch: Batch, found: Scores, reference: Scores, totals: Totals
    ) -> dict[str, float]:
        """A validation batch's part of the terms' values and of what they report."""
        responses = batch.responses.to(found.token_logps.device)
        share = responses.examples / totals.examples
        numbers = {}
        for name, result in self.composite(found, reference, responses, totals).items():
            coupled = self.composite.terms[name].coupled
            numbers[f"loss/{name}"] = float(result.loss) * (share if coupled else 1.0)
            for key, value in result.metrics.items():
                numbers[f"{name}/{key}"] = float(value) * share
        return numbers

    def _whole_mass(self, masses: list[Tensor]) -> Tensor | None:
        """[V] the softmax summed over the split, where the terms asked for it."""
        if ("chosen", "batch") not in self.composite.request.distributions:
            return None
        device = self.prepared.start.policy.device
        total = torch.zeros(self.context.vocab_size, dtype=torch.float64, device=device)
        for mass in masses:
            total += mass
        self.world.add_tensors([total])
        return total

    def _transport(self, distribution: Tensor | None) -> dict[str, float]:
        """What the form of the run's PLOT has to do with full transport, at this mean [V]."""
        if self.plot is None or distribution is None:
            return {}
        found = faithfulness(self.plot, self.context, distribution)
        return (
            {f"val/transport_{key}": value for key, value in found.metrics().items()}
            if found
            else {}
        )

    def _mismatched(self, policy: Policy) -> Tensor | None:
        """KTO's divergence, estimated on the whole split."""
        if not self.composite.needs_mismatched:
            return None
        training = policy.training
        policy.eval()
        found = mismatched_log_ratio(
            self.batches,
            self.mismatch,
            lambda batch: policy(batch, Request()),
            lambda batch: self.reference.reference(batch, Request()),
            policy.device,
        )  # every process takes all of it: which responses meet depends on their order
        policy.train(training)
        return found

    def sample(self, policy: Policy, step: int, run_dir: Path, tracker: Tracker | None) -> None:
        """A few answers during training, to generations.jsonl and W&B.

        Args:
            tracker: of the first process, which writes.
        """
        prompts = self.prompts[:VALIDATION_PROMPTS]
        if not prompts:
            return
        dialogues = [item.example.prompt for item in prompts]
        answers = self._generator(policy)(dialogues, self.sampling, bar=silent)
        if tracker is None:
            return
        rows = [
            {
                "step": step,
                "category": item.example.category,
                "prompt": item.example.prompt[-1].content,
                "answer": row[0].text,
            }
            for item, row in zip(prompts, answers, strict=True)
        ]
        kept = _rows_before(run_dir / "generations.jsonl", step)
        lines = [json.dumps(row, ensure_ascii=False) for row in [*kept, *rows]]
        write_text(run_dir / "generations.jsonl", "\n".join(lines) + "\n")
        columns = ["step", "category", "prompt", "answer"]
        tracker.table("generations", columns, [[row[key] for key in columns] for row in rows], step)


def _rows_before(path: Path, step: int) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [row for row in rows if row["step"] < step]
