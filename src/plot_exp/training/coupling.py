"""From an optimizer's batch of microbatches to gradients, exact for batch-coupled terms too.

Losses are evaluated on detached copies of the scores ("leaves"). Their gradients, one list a
term, are then pulled back through the model. A coupled term needs the leaves of the whole batch
before any gradient is known, hence a first pass without a graph when there are several
microbatches (the gradient-cache scheme, arXiv 2101.06983); random state is replayed in the
second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from plot_exp.data.collate import Batch, Responses
from plot_exp.losses.base import TermResult, Totals
from plot_exp.losses.composite import Composite
from plot_exp.ops.scores import Scores

Mode = Literal["exact", "carried", "microbatch"]
ScoreBatch = Callable[[Batch, int], Scores]
TermGradients = dict[str, list[Tensor]]
PullBack = Callable[[list[Tensor], TermGradients], None]


@dataclass(frozen=True)
class Part:
    """One microbatch's scores, detached."""

    policy: Scores
    reference: Scores | None
    responses: Responses

    def as_tensors(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint that is loaded with weights only."""
        return {
            "policy": self.policy.as_tensors(),
            "reference": None if self.reference is None else self.reference.as_tensors(),
            "responses": self.responses.as_tensors(),
        }

    @staticmethod
    def from_tensors(state: Mapping[str, Any]) -> Part:
        """What `as_tensors` gave."""
        reference = state["reference"]
        return Part(
            Scores.from_tensors(state["policy"]),
            None if reference is None else Scores.from_tensors(reference),
            Responses(**state["responses"]),
        )

    @staticmethod
    def concatenate(parts: Sequence[Part]) -> Part:
        """Several microbatches as one."""
        references = [part.reference for part in parts if part.reference is not None]
        return Part(
            Scores.concatenate([part.policy for part in parts]),
            Scores.concatenate(references) if references else None,
            Responses.concatenate([part.responses for part in parts]),
        )


@dataclass(frozen=True)
class Outcome:
    """What a step leaves for logging and for the next step.

    Attributes:
        terms: every term's value on the optimizer's batch.
        whole: the scores of the whole batch, detached.
        parts: the same by microbatch; `carried` reads them in the next step.
    """

    terms: dict[str, TermResult]
    whole: Part
    parts: list[Part]


def leaf_gradients(
    composite: Composite, names: Sequence[str], part: Part, totals: Totals
) -> tuple[dict[str, TermResult], TermGradients]:
    """The named terms on a part, and the gradient of each in the policy's score tensors."""
    results, gradients = {}, {}
    for name in names:
        leaves = part.policy.leaves()
        with torch.enable_grad():
            result = composite.terms[name](leaves, part.reference, part.responses, totals)
        tensors = leaves.tensors()
        found = torch.autograd.grad(result.loss, tensors, allow_unused=True)
        gradients[name] = [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, found, strict=True)
        ]
        results[name] = TermResult(result.loss.detach(), result.metrics)
    return results, gradients


def accumulate(
    microbatches: Sequence[Batch],
    *,
    score_policy: ScoreBatch,
    score_reference: Callable[[Batch], Scores] | None,
    composite: Composite,
    mode: Mode,
    carried: Sequence[Part] | None,
    pull_back: PullBack,
) -> Outcome:
    """Scores the batch, evaluates every term on it and pulls the gradients back.

    Args:
        score_policy: called with a microbatch and its index, under grad mode or not; it sets the
            random state, so that two calls on one microbatch agree.
        carried: the parts of the last step, for `mode="carried"`; None makes this step exact.
        pull_back: called once a microbatch with the policy's outputs, graph attached, and the
            gradients of every term in them.
    """
    totals = Totals.of([batch.responses for batch in microbatches])
    two_passes = composite.coupled and len(microbatches) > 1
    if two_passes and (mode == "exact" or (mode == "carried" and not carried)):
        return _exact(microbatches, score_policy, score_reference, composite, totals, pull_back)
    parts, results = [], []
    for index, batch in enumerate(microbatches):
        outputs = score_policy(batch, index)
        part = Part(outputs.detach(), _reference(score_reference, batch), batch.responses)
        parts.append(part)
        found, gradients = _one_pass(
            composite, part, totals, index, len(microbatches), carried if two_passes else None
        )
        results.append(found)
        pull_back(outputs.tensors(), gradients)
    return Outcome(_add(results), Part.concatenate(parts), parts)


def _reference(score_reference: Callable[[Batch], Scores] | None, batch: Batch) -> Scores | None:
    return None if score_reference is None else score_reference(batch)


def _exact(
    microbatches: Sequence[Batch],
    score_policy: ScoreBatch,
    score_reference: Callable[[Batch], Scores] | None,
    composite: Composite,
    totals: Totals,
    pull_back: PullBack,
) -> Outcome:
    parts = []
    for index, batch in enumerate(microbatches):
        with torch.no_grad():
            outputs = score_policy(batch, index)
        parts.append(Part(outputs.detach(), _reference(score_reference, batch), batch.responses))
    whole = Part.concatenate(parts)
    results, gradients = leaf_gradients(composite, list(composite.terms), whole, totals)
    policies = [part.policy for part in parts]
    split = {
        name: whole.policy.split_gradients(gradient, policies)
        for name, gradient in gradients.items()
    }
    for index, batch in enumerate(microbatches):
        outputs = score_policy(batch, index)
        pull_back(outputs.tensors(), {name: rows[index] for name, rows in split.items()})
    return Outcome(results, whole, parts)


def _one_pass(
    composite: Composite,
    part: Part,
    totals: Totals,
    index: int,
    count: int,
    carried: Sequence[Part] | None,
) -> tuple[dict[str, TermResult], TermGradients]:
    """The terms on one microbatch, coupled ones as `carried` or `microbatch` define them.

    `carried`: the other microbatches' places are taken by those of the last step, so the term
    sees a batch of full size whose statistics are one step old but for this part.
    `microbatch`: the term sees this part alone, weighed by its share of the examples.
    """
    alone = [name for name, term in composite.terms.items() if count == 1 or not term.coupled]
    coupled = [name for name in composite.terms if name not in alone]
    results, gradients = leaf_gradients(composite, alone, part, totals)
    if not coupled:
        return results, gradients
    if carried is not None:
        others = [other for place, other in enumerate(carried) if place != index]
        seen = Part.concatenate([part, *others])
        parts = [part.policy, *(other.policy for other in others)]
        found, whole_gradients = leaf_gradients(
            composite, coupled, seen, Totals.of([seen.responses])
        )
        cut = {
            name: seen.policy.split_gradients(gradient, parts)[0]
            for name, gradient in whole_gradients.items()
        }
        share = 1.0 / count
    else:
        found, cut = leaf_gradients(composite, coupled, part, Totals.of([part.responses]))
        share = part.responses.examples / totals.examples
        cut = {name: [share * g for g in gradient] for name, gradient in cut.items()}
    scaled = {name: replace(result, loss=share * result.loss) for name, result in found.items()}
    return results | scaled, gradients | cut


def _add(results: Sequence[dict[str, TermResult]]) -> dict[str, TermResult]:
    """Terms of several microbatches: values add up, metrics are averaged."""
    if len(results) == 1:
        return results[0]
    added = {}
    for name in results[0]:
        of_term = [result[name] for result in results]
        metrics = {
            key: torch.stack([result.metrics[key] for result in of_term]).mean()
            for key in of_term[0].metrics
        }
        added[name] = TermResult(torch.stack([result.loss for result in of_term]).sum(), metrics)
    return added
