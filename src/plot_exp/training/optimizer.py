"""AdamW on what is trainable, and the schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from plot_exp.config.schema import OptimizerConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerConfig
) -> torch.optim.AdamW:
    """The fused form: one kernel for all weights, and one that a flag on the device can hold back.

    With `found_inf` set to a tensor of 1 a step leaves weights and moments as they are.
    """
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


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
