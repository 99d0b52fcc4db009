"""What a model is made of, for the logs: architecture, sizes, parameters by module."""

from __future__ import annotations

from typing import Any

from plot_exp.models.policy import Policy


def model_summary(policy: Policy, origin: str) -> dict[str, Any]:
    """Plain data: sizes of the whole, and parameters of each part down to the layers' stack.

    Args:
        origin: the hub id or directory that the weights came from.
    """
    model = policy.model
    parts = {"": model, **dict(model.named_children())}
    parts |= {f"model.{name}": part for name, part in model.get_decoder().named_children()}
    return {
        "architecture": type(model).__name__,
        "origin": origin,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "vocab_size": policy.vocab_size,
        "parameters": _count(model, trainable_only=False),
        "trainable": _count(model, trainable_only=True),
        "parts": [
            {
                "part": name or "whole model",
                "type": type(part).__name__,
                "parameters": _count(part, trainable_only=False),
                "trainable": _count(part, trainable_only=True),
            }
            for name, part in parts.items()
        ],
    }


def _count(module: Any, *, trainable_only: bool) -> int:
    return sum(
        parameter.numel()
        for parameter in module.parameters()
        if parameter.requires_grad or not trainable_only
    )
