"""How far the model's token distribution stands from the preference distribution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.losses.plot import PLOT
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request, Side

SHOWN_TOKENS = 30


def mean_distribution(policy: Policy, batches: Iterable[Batch], side: Side) -> Tensor:
    """[V] fp64 on CPU: the softmax averaged over all response positions of one side."""
    total = summed_distribution(policy, batches, side)
    return total / total.sum()


@torch.no_grad()
def summed_distribution(policy: Policy, batches: Iterable[Batch], side: Side) -> Tensor:
    """[V] fp64 on CPU: the softmax summed over all response positions of one side."""
    total = torch.zeros(policy.vocab_size, dtype=torch.float64)
    request = Request(frozenset({(side, "batch")}))
    training = policy.training
    policy.eval()
    for batch in batches:
        scores = policy(batch.to(policy.device), request)
        total += scores.distributions[(side, "batch")].double().cpu()
    policy.train(training)
    return total


def distance(plot: PLOT, distribution: Tensor) -> float:
    """The transport of PLOT's own form and scale from a mean distribution [V] to its target."""
    device = plot.target.device
    return float(plot.distance(plot.restrict(distribution.to(device, torch.float32))))


def favoured_tokens(
    difference: Tensor, chosen: Tensor, rejected: Tensor, names: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The tokens that people's choices favour and disfavour most.

    Args:
        difference: [V] Q_diff.
        chosen, rejected: [V] counts.
        names: how each token is shown.
    """

    def rows(order: Tensor) -> list[dict[str, Any]]:
        return [
            {
                "token": names[token],
                "id": token,
                "chosen": int(chosen[token]),
                "rejected": int(rejected[token]),
                "difference": float(difference[token]),
            }
            for token in order.tolist()
            if float(difference[token]) != 0
        ]

    order = torch.argsort(difference, descending=True, stable=True)
    return {
        "favoured": [row for row in rows(order[:SHOWN_TOKENS]) if row["difference"] > 0],
        "disfavoured": [row for row in rows(order.flip(0)[:SHOWN_TOKENS]) if row["difference"] < 0],
    }


def moved_tokens(
    target: Tensor, before: Tensor, after: Tensor, names: list[str]
) -> list[dict[str, Any]]:
    """The tokens whose share in the model's mean distribution [V] changed most."""
    order = torch.argsort((after - before).abs(), descending=True, stable=True)
    return [
        {
            "token": names[token],
            "id": token,
            "target": float(target[token]),
            "before": float(before[token]),
            "after": float(after[token]),
        }
        for token in order[:SHOWN_TOKENS].tolist()
    ]
