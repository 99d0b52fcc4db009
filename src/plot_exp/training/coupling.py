"""From an optimizer's batch of microbatches to gradients, exact for batch-coupled terms too.

Losses are evaluated on detached copies of the scores ("leaves"). Their gradients, one list a
term, are then pulled back through the model. A coupled term needs the leaves of the whole batch
before any gradient is known, hence a first pass without a graph when there are several
microbatches (the gradient-cache scheme, arXiv 2101.06983); random state is replayed in the
second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.losses.base import TermResult, Totals
from plot_exp.losses.composite import Composite
from plot_exp.ops.scores import Scores
from plot_exp.training.part import Part
from plot_exp.training.world import World

Mode = Literal["exact", "carried", "microbatch"]
ScoreBatch = Callable[[Batch, int, Scores | None], Scores]
TermGradients = dict[str, list[Tensor]]
PullBack = Callable[[list[Tensor], TermGradients], None]


@dataclass(frozen=True)
class Outcome:
    """What a step leaves for logging and for the next step.

    Attributes:
        terms: every term's value on the optimizer's batch.
        parts: the scores by microbatch, detached; `carried` reads them in the next step.
        gathered: whether `parts` holds those of every process, or this one's alone.
    """

    terms: dict[str, TermResult]
    parts: list[Part]
    gathered: bool

    def whole(self, world: World | None = None) -> Part:
        """The scores of the whole batch; every process of `world` must ask for it."""
        if self.gathered or world is None:
            return Part.concatenate(self.parts)
        return Part.concatenate(world.gather(self.parts)[0])


def leaf_gradients(
    composite: Composite, names: Sequence[str], part: Part, totals: Totals
) -> tuple[dict[str, TermResult], TermGradients]:
    """The named terms on a part, and the gradient of each in the policy's score tensors."""
    results, gradients = {}, {}
    for name in names:
        leaves = part.policy.leaves()
        with torch.enable_grad():
            result = composite.result(name, leaves, part.reference, part.responses, totals)
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
    world: World | None = None,
    counts: Sequence[Totals] | None = None,
    mismatched: Tensor | None = None,
) -> Outcome:
    """Scores the batch, evaluates every term on it and pulls the gradients back.

    With several processes each calls this with its own microbatches, as many as the others; the
    batch is all of them together, and the gradients of the processes add up to its gradient. Idle
    microbatches, which come last, go through the models and count for nothing.

    Args:
        score_policy: called with a microbatch, its index and the reference's scores of it, under
            grad mode or not; it sets the random state, so that two calls on one microbatch agree.
        carried: the parts of the last step, read in `mode="carried"`; None makes it exact.
        pull_back: called once a microbatch with the policy's outputs, graph attached, and the
            gradients of every term in them.
        world: the processes that share the batch; None for this one alone.
        counts: of each microbatch that is not idle, taken on the CPU; None counts on the device,
            which waits for it.
        mismatched: what `Totals.mismatched` says of it.
    """
    world = world or World()
    counts = counts or [Totals.of([one.responses]) for one in microbatches if not one.idle]
    totals = world.add_totals(Totals.add(counts))
    totals = replace(totals, mismatched=mismatched)
    spread = len(microbatches) > 1 or world.size > 1
    coupled = composite.coupled and spread
    last = carried if mode == "carried" else None
    if coupled and not last and mode != "microbatch":
        return _exact(
            microbatches, score_policy, score_reference, composite, counts, totals, pull_back, world
        )
    stale = _Stale(last, world, len(counts)) if coupled and last else None
    parts: list[Part] = []
    results: list[dict[str, TermResult]] = []
    for index, batch in enumerate(microbatches):
        reference = _reference(score_reference, batch)
        outputs = score_policy(batch, index, reference)
        if batch.idle:
            if not results:
                results.append(_nothing(composite, _part(outputs, reference, batch), totals))
            pull_back(outputs.tensors(), _no_gradients(composite, outputs))
            continue
        part = _part(outputs, reference, batch, counts[index])
        parts.append(part)
        found, gradients = _one_pass(composite, part, totals, index, spread, stale)
        results.append(found)
        pull_back(outputs.tensors(), gradients)
    gathered = world.gather(parts)[0] if mode == "carried" else parts
    examples = [part.responses.examples for part in parts]
    added = world.add_results(_add(results, examples), sum(examples))
    return Outcome(added, gathered, world.size == 1 or mode == "carried")


def _reference(score_reference: Callable[[Batch], Scores] | None, batch: Batch) -> Scores | None:
    return None if score_reference is None else score_reference(batch)


def _part(
    outputs: Scores, reference: Scores | None, batch: Batch, counts: Totals | None = None
) -> Part:
    """What the terms read; the reference's states have served once the policy is scored."""
    kept = None if reference is None else replace(reference, tokens={})
    return Part(outputs.detach(), kept, batch.responses, counts)


def _no_gradients(composite: Composite, outputs: Scores) -> TermGradients:
    """Zeros, for a pass that others wait for."""
    return {
        name: [torch.zeros_like(tensor) for tensor in outputs.tensors()] for name in composite.terms
    }


def _nothing(composite: Composite, part: Part, totals: Totals) -> dict[str, TermResult]:
    """What a process without examples adds to every term: zeros by the names of the others."""
    with torch.no_grad():
        found = composite(part.policy, part.reference, part.responses, totals)
    return {
        name: TermResult(
            torch.zeros_like(result.loss),
            {key: torch.zeros_like(value) for key, value in result.metrics.items()},
        )
        for name, result in found.items()
    }


def _exact(
    microbatches: Sequence[Batch],
    score_policy: ScoreBatch,
    score_reference: Callable[[Batch], Scores] | None,
    composite: Composite,
    counts: Sequence[Totals],
    totals: Totals,
    pull_back: PullBack,
    world: World,
) -> Outcome:
    """One pass where this process has one microbatch, whose graph is kept; else two."""
    one_pass = len(microbatches) == 1
    parts, outputs, references = [], [], []
    for index, batch in enumerate(microbatches):
        references.append(_reference(score_reference, batch))
        with torch.set_grad_enabled(one_pass):
            outputs.append(score_policy(batch, index, references[-1]))
        if not batch.idle:
            parts.append(_part(outputs[-1], references[-1], batch, counts[index]))
    gathered, first = world.gather(parts)
    whole = Part.concatenate(gathered)
    results, gradients = leaf_gradients(composite, list(composite.terms), whole, totals)
    policies = [part.policy for part in gathered]
    split = {
        name: whole.policy.split_gradients(gradient, policies)
        for name, gradient in gradients.items()
    }
    for index, batch in enumerate(microbatches):
        graph = outputs[index] if one_pass else score_policy(batch, index, references[index])
        if batch.idle:
            own = _no_gradients(composite, graph)
        else:
            own = {name: rows[first + index] for name, rows in split.items()}
        pull_back(graph.tensors(), own)
    return Outcome(results, gathered, True)


class _Stale:
    """The last step's parts, with the place of one of this step's left free.

    Args:
        count: this process's microbatches; as many as in the last step, but for the shorter last
            batch.
    """

    def __init__(self, carried: Sequence[Part], world: World, count: int) -> None:
        self.carried = carried
        counts, _ = world.gather_objects([count])
        self.first = sum(counts[: world.rank])
        self.count = sum(counts)

    def others(self, index: int) -> list[Part]:
        """Every part of the last step but the one at this microbatch's place."""
        place = self.first + index
        return [other for at, other in enumerate(self.carried) if at != place]


def _one_pass(
    composite: Composite,
    part: Part,
    totals: Totals,
    index: int,
    spread: bool,
    stale: _Stale | None,
) -> tuple[dict[str, TermResult], TermGradients]:
    """The terms on one microbatch, coupled ones as `carried` or `microbatch` define them.

    `carried`: the other microbatches' places are taken by those of the last step, so the term
    sees a batch of full size whose statistics are one step old but for this part.
    `microbatch`: the term sees this part alone, weighed by its share of the examples.

    Args:
        spread: the optimizer's batch is more than this part.
    """
    alone = [name for name, term in composite.terms.items() if not (spread and term.coupled)]
    coupled = [name for name in composite.terms if name not in alone]
    results, gradients = leaf_gradients(composite, alone, part, totals)
    if not coupled:
        return results, gradients
    if stale is not None:
        others = stale.others(index)
        seen = Part.concatenate([part, *others])
        parts = [part.policy, *(other.policy for other in others)]
        found, whole_gradients = leaf_gradients(composite, coupled, seen, seen.totals)
        cut = {
            name: seen.policy.split_gradients(gradient, parts)[0]
            for name, gradient in whole_gradients.items()
        }
        share = 1.0 / stale.count
    else:
        found, cut = leaf_gradients(composite, coupled, part, part.totals)
        share = part.responses.examples / totals.examples
        cut = {name: [share * g for g in gradient] for name, gradient in cut.items()}
    scaled = {name: replace(result, loss=share * result.loss) for name, result in found.items()}
    return results | scaled, gradients | cut


def _add(
    results: Sequence[dict[str, TermResult]], examples: Sequence[int]
) -> dict[str, TermResult]:
    """Terms of several microbatches: values add up, metrics are averaged over examples."""
    if len(results) == 1:
        return results[0]
    added = {}
    shares = [count / sum(examples) for count in examples]
    for name in results[0]:
        of_term = [result[name] for result in results]
        metrics = {
            key: torch.stack(
                [share * one.metrics[key] for share, one in zip(shares, of_term, strict=True)]
            ).sum()
            for key in of_term[0].metrics
        }
        added[name] = TermResult(torch.stack([result.loss for result in of_term]).sum(), metrics)
    return added
