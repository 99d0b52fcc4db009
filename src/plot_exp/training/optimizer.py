"""AdamW on what is trainable, and the schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from plot_exp.config.schema import OptimizerConfig
from plot_exp.models.quantised import require_bitsandbytes
from plot_exp.training.average import WeightAverage


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerConfig
) -> torch.optim.Optimizer:
    """AdamW, and the average of the weights where one is asked for.

    With `found_inf` set to a tensor of 1 a step leaves weights and moments as they are.

    Raises:
        UserError: what the settings ask for cannot be had.
    """
    optimizer = (
        _eight_bit(parameters, settings) if settings.eight_bit else _whole(parameters, settings)
    )
    if settings.ema is not None:
        WeightAverage(optimizer, settings.ema)
    return optimizer


def _whole(parameters: Iterable[nn.Parameter], settings: OptimizerConfig) -> torch.optim.Optimizer:
    """The fused form: one kernel for all weights, which a flag on the device can hold back."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _eight_bit(
    parameters: Iterable[nn.Parameter], settings: OptimizerConfig
) -> torch.optim.Optimizer:
    """bitsandbytes' form, whose moments are blocks of eight-bit numbers (arXiv 2110.02861)."""
    bitsandbytes = require_bitsandbytes("optimizer.eight_bit")
    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    optimizer.register_step_pre_hook(_hold_back)
    return optimizer


def _hold_back(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Its kernel reads no flag: the host does, and takes the gradients away."""
    found = getattr(optimizer, "found_inf", None)
    if found is not None and bool(found > 0):
        optimizer.zero_grad(set_to_none=True)


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
