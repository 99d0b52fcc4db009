"""What an optimizer keeps beside the weights, by what `training.optimizer` builds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plot_exp.config.schema import OptimizerConfig

# bitsandbytes' blockwise form (arXiv 2110.02861): a scale a block, and small tensors as they are.
BLOCK, SMALLEST = 256, 4_096
# NF4 with scales that are quantised once more (arXiv 2305.14314): bytes a weight.
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)


def make_states(optimizer: torch.optim.Optimizer, settings: OptimizerConfig) -> None:
    """Gives every weight its two moments, and the average of the weights where there is one."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if state:
                continue
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = _moment(parameter, settings.eight_bit)
            if settings.ema is not None:
                state["average"] = (torch.empty_like(parameter),)


def _moment(parameter: nn.Parameter, eight_bit: bool) -> tuple[Tensor, ...]:
    if not eight_bit:
        return (torch.zeros_like(parameter),)
    count = parameter.numel()
    if count < SMALLEST:
        return (torch.zeros(count, dtype=torch.float32),)
    # Half precision stands in for the bytes, since whole numbers are computed in a rehearsal.
    bytes_ = torch.zeros(-(-count // 2), dtype=torch.bfloat16)
    return bytes_, torch.zeros(-(-count // BLOCK), dtype=torch.float32)
