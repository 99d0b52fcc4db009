"""Where a run computes, and in what precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from plot_exp.config.schema import TrainerConfig


def device_of(config: TrainerConfig) -> torch.device:
    """The device of `trainer.accelerator`; the CPU where there is no GPU that torch can use."""
    if config.accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def weights_dtype(config: TrainerConfig) -> torch.dtype | None:
    """What `trainer.precision` makes of every weight; None leaves them as they are."""
    return {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(config.precision)


def autocast(config: TrainerConfig, device: torch.device) -> AbstractContextManager[object]:
    """The mixed precision of training, for what is scored outside of it."""
    if config.precision == "bf16-mixed":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
