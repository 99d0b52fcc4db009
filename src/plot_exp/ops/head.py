"""The language-model head: hidden states to logits, with what some architectures do to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Head:
    """Calls a model's output embedding and its soft-cap or scaling.

    Holds the output embedding without owning it, so that the policy's parameters have one owner.

    Args:
        output_embedding: the linear layer [V, D], tied to the input or not.
        config: the model's configuration; read for `final_logit_softcapping` (Gemma 2),
            `logit_scale` (Cohere) and `logits_scaling` (Granite).
    """

    def __init__(self, output_embedding: nn.Module, config: Any) -> None:
        self.output_embedding = output_embedding
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale = float(getattr(config, "logit_scale", None) or 1.0)
        self.scale /= float(getattr(config, "logits_scaling", None) or 1.0)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] of hidden states [N, D], at least in fp32."""
        logits = self.output_embedding(hidden)
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits
