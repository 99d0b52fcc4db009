"""Does the model prefer what people chose? Accuracies and margins on held-out examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from plot_exp.data.collate import Batch
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.evals.groups import group_names
from plot_exp.evals.intervals import summarise
from plot_exp.models.policy import Policy
from plot_exp.models.reference import Reference
from plot_exp.ops.scores import Request, Scores

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
COMPARED = ("reward_accuracy", "reward_margin", "logp_accuracy")


@dataclass(frozen=True)
class ScoredExample:
    """One example's responses under policy and reference, in the example's order.

    Attributes:
        policy, reference: s(y) and s_ref(y) of each response.
        lengths: tokens of each response.
    """

    source: TokenisedExample
    policy: np.ndarray
    reference: np.ndarray
    lengths: np.ndarray


class RememberedReference:
    """A reference that scores each validation batch once: it never changes.

    Args:
        reference: in any of its forms.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._known: dict[int, tuple[Batch, Scores]] = {}

    def scores(self, batch: Batch, request: Request | None = None) -> Scores:
        """Its scores of a batch, on the reference's device.

        Args:
            request: what more is needed of it; too large to remember, so scored each time.
        """
        if request is not None and request.tokens:
            return self.reference(batch.to(self.reference.device), request)
        if id(batch) not in self._known:
            found = self.reference(batch.to(self.reference.device), Request())
            self._known[id(batch)] = (batch, found)
        return self._known[id(batch)][1]


@torch.no_grad()
def score_examples(
    policy: Policy,
    reference: RememberedReference,
    batches: Iterable[Batch],
    request: Request | None = None,
    each: Callable[[Batch, Scores, Scores], None] | None = None,
) -> list[ScoredExample]:
    """Scores every response of the batches.

    Args:
        request: what else to compute, for `each`.
        each: called with every batch and its scores under policy and reference.
    """
    scored = []
    training = policy.training
    policy.eval()
    for batch in batches:
        request = request or Request()
        reference_scores = reference.scores(batch, request.of_reference())
        states = reference.reference.states(reference_scores)
        found = policy(batch.to(policy.device), request, reference=states)
        if each is not None:
            each(batch, found, reference_scores)
        sums = found.sums().double().cpu().numpy()
        reference_sums = reference_scores.sums().double().cpu().numpy()
        start = 0
        for source in batch.sources:
            stop = start + len(source.response_ids)
            lengths = np.array([len(ids) for ids in source.response_ids])
            scored.append(
                ScoredExample(source, sums[start:stop], reference_sums[start:stop], lengths)
            )
            start = stop
    policy.train(training)
    return scored


def preference_metrics(
    scored: Iterable[ScoredExample], beta: float, *, intervals: bool = True
) -> dict[str, float]:
    """Accuracies and margins over ranked examples, by category too.

    The best response stands against every other one of its example; an example counts once, with
    the mean over its pairs. Ties count half. `reward_accuracy` compares β·(s − s_ref),
    `logp_accuracy/sum` s and `logp_accuracy/mean` s/|y|. Unpaired examples give the mean rewards
    of the desirable and the undesirable.

    Args:
        beta: from log-ratios to rewards.
        intervals: add `/count`, `/low` and `/high` (95 % bootstrap over examples) to accuracies
            and margins.
    """
    values: dict[str, list[float]] = defaultdict(list)
    scored = list(scored)
    groups = group_names([item.source.example for item in scored])
    for item, names in zip(scored, groups, strict=True):
        labelled = item.source.example.kind == "unpaired"
        found = _of_labelled(item, beta) if labelled else _of_ranked(item, beta)
        for key, numbers in found.items():
            values[key] += numbers
            for name in names:
                values[f"{key}/{name}"] += numbers
    if intervals:
        metrics: dict[str, float] = {}
        for key in sorted(values):
            compared = key.startswith(COMPARED)
            metrics |= (
                summarise(key, values[key], rate="accuracy" in key)
                if compared
                else {key: float(np.mean(values[key]))}
            )
        return metrics
    return {key: float(np.mean(values[key])) for key in sorted(values)}


def reward_quantiles(scored: Iterable[ScoredExample], beta: float) -> dict[str, float]:
    """Quantiles of the chosen and of the rejected responses' rewards, each response once.

    Keys are `quantile/chosen/10` and so on; a side without responses has none, and neither have
    demonstrations.
    """
    sides: dict[str, list[float]] = {"chosen": [], "rejected": []}
    for item in scored:
        example = item.source.example
        if example.kind == "single":
            continue
        labels = example.desirable or (True, *[False] * (len(item.policy) - 1))
        for preferred, reward in zip(labels, beta * (item.policy - item.reference), strict=True):
            sides["chosen" if preferred else "rejected"].append(float(reward))
    return {
        f"quantile/{side}/{round(100 * level)}": float(np.quantile(rewards, level))
        for side, rewards in sides.items()
        if rewards
        for level in QUANTILES
    }


def _of_ranked(item: ScoredExample, beta: float) -> dict[str, list[float]]:
    found = {
        "logps_chosen": [float(item.policy[0])],
        "length_chosen": [float(item.lengths[0])],
    }
    if len(item.policy) < 2:
        return found
    rewards = beta * (item.policy - item.reference)
    margins = rewards[0] - rewards[1:]
    means = item.policy / item.lengths
    found |= {
        "logps_rejected": [float(item.policy[1:].mean())],
        "length_rejected": [float(item.lengths[1:].mean())],
        "reward_chosen": [float(rewards[0])],
        "reward_rejected": [float(rewards[1:].mean())],
        "reward_margin": [float(margins.mean())],
        "reward_accuracy": [_share_positive(margins)],
        "logp_accuracy/sum": [_share_positive(item.policy[0] - item.policy[1:])],
        "logp_accuracy/mean": [_share_positive(means[0] - means[1:])],
    }
    for name, mask in (
        ("chosen_longer", item.lengths[0] > item.lengths[1:]),
        ("rejected_longer", item.lengths[0] < item.lengths[1:]),
        ("same_length", item.lengths[0] == item.lengths[1:]),
    ):
        if mask.any():
            found[f"reward_margin/{name}"] = [float(margins[mask].mean())]
            found[f"reward_accuracy/{name}"] = [_share_positive(margins[mask])]
    return found


def _of_labelled(item: ScoredExample, beta: float) -> dict[str, list[float]]:
    rewards = beta * (item.policy - item.reference)
    found: dict[str, list[float]] = defaultdict(list)
    assert item.source.example.desirable is not None
    for label, reward, logp in zip(
        item.source.example.desirable, rewards, item.policy, strict=True
    ):
        side = "chosen" if label else "rejected"
        found[f"reward_{side}"].append(float(reward))
        found[f"logps_{side}"].append(float(logp))
    return found


def _share_positive(margins: np.ndarray) -> float:
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())
