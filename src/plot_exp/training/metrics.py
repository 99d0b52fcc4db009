"""What is logged of a step: terms, rewards, log-probabilities, lengths, speed and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.evals.preferences import QUANTILES
from plot_exp.losses.base import TermResult
from plot_exp.losses.dominance import violated_share
from plot_exp.training.part import Part
from plot_exp.training.world import World

Metrics = dict[str, Tensor | float]


def read_together(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Plain numbers, with one wait for the device however many tensors there are."""
    tensors = {key: value for key, value in metrics.items() if isinstance(value, Tensor)}
    if not tensors:
        return {key: float(value) for key, value in metrics.items()}
    device = next((one.device for one in tensors.values() if one.device.type != "cpu"), None)
    rows = [value.detach().to(device, torch.float64) for value in tensors.values()]
    found = dict(zip(tensors, torch.stack(rows).tolist(), strict=True))
    return {key: found[key] if key in found else float(value) for key, value in metrics.items()}


def term_metrics(
    prefix: str, terms: Mapping[str, TermResult], weights: Mapping[str, float]
) -> Metrics:
    """The weighted loss, every unweighted term, and what the terms report of themselves."""
    metrics: Metrics = {}
    total = sum(weights[name] * result.loss for name, result in terms.items())
    metrics[f"{prefix}/loss"] = total
    for name, result in terms.items():
        metrics[f"{prefix}/loss/{name}"] = result.loss
        for key, value in result.metrics.items():
            metrics[f"{prefix}/{name}/{key}"] = value
    return metrics


@torch.no_grad()
def response_metrics(prefix: str, part: Part, beta: float) -> Metrics:
    """Log-probabilities and lengths by side; rewards β·(s − s_ref) where a reference was scored."""
    responses = part.responses
    sums = part.policy.sums()
    sides = {"chosen": responses.chosen, "rejected": responses.rejected}
    metrics: Metrics = {}
    for side, mask in sides.items():
        if bool(mask.any()):
            metrics[f"{prefix}/logps_{side}"] = sums[mask].mean()
            metrics[f"{prefix}/length_{side}"] = responses.length[mask].float().mean()
    if part.reference is None:
        return metrics
    rewards = beta * (sums - part.reference.sums())
    levels = torch.tensor(QUANTILES, dtype=rewards.dtype, device=rewards.device)
    for side, mask in sides.items():
        if not bool(mask.any()):
            continue
        metrics[f"{prefix}/reward_{side}"] = rewards[mask].mean()
        quantiles = torch.quantile(rewards[mask], levels)
        for level, value in zip(QUANTILES, quantiles, strict=True):
            metrics[f"{prefix}/quantile/{side}/{round(100 * level)}"] = value
    better, worse = rewards[responses.chosen], rewards[responses.rejected]
    if len(better) and len(worse):
        metrics[f"{prefix}/quantiles_violated"] = violated_share(better, worse)
    if len(responses.pairs):
        chosen, rejected = responses.pairs.unbind(-1)
        margin = rewards[chosen] - rewards[rejected]
        metrics[f"{prefix}/reward_margin"] = margin.mean()
        metrics[f"{prefix}/reward_accuracy"] = accuracy(margin).mean()
    return metrics


def accuracy(margin: Tensor) -> Tensor:
    """1 where the margin is positive, ½ for a tie, else 0."""
    return (margin > 0).to(margin.dtype) + 0.5 * (margin == 0).to(margin.dtype)


class Throughput:
    """Pairs and tokens a second of training since the last reading, and peak memory."""

    def __init__(self) -> None:
        self.started: float | None = None
        self.pairs = self.tokens = 0
        self.total_pairs, self.total_seconds = 0, 0.0

    def add(self, microbatches: Sequence[Batch]) -> None:
        """Counts a finished step; the clock starts with the first, which pays for warming up."""
        if self.started is None:
            self.started = time.perf_counter()
            return
        own = [batch for batch in microbatches if not batch.idle]
        self.pairs += sum(len(batch.responses.pairs) for batch in own)
        self.tokens += sum(batch.tokens for batch in own)

    def leave_out(self, seconds: float) -> None:
        """Takes time that was not training, such as a validation, off the clock."""
        if self.started is not None:
            self.started += seconds

    def read(self, device: torch.device, world: World | None = None) -> Metrics:
        """The rates since the last reading, and the peak memory of the fullest process in GB.

        Args:
            world: the processes whose pairs and tokens count together; all of them read.
        """
        own = (self.pairs, self.tokens, peak_memory(device))
        pairs, tokens, memory = zip(*(world or World()).gather_objects([own])[0], strict=True)
        metrics: Metrics = {"train/memory_gb": max(memory)}
        if self.started is None or not sum(tokens):
            return metrics
        seconds = max(time.perf_counter() - self.started, 1e-9)
        metrics["train/pairs_per_second"] = sum(pairs) / seconds
        metrics["train/tokens_per_second"] = sum(tokens) / seconds
        self.total_pairs += sum(pairs)
        self.total_seconds += seconds
        self.started, self.pairs, self.tokens = time.perf_counter(), 0, 0
        return metrics

    def overall(self) -> dict[str, float]:
        """Pairs a second over every reading so far; empty before the first."""
        if not self.total_seconds:
            return {}
        return {"train/pairs_per_second": self.total_pairs / self.total_seconds}


def peak_memory(device: torch.device) -> float:
    """GB: of the GPU's allocator on a GPU, resident memory of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
