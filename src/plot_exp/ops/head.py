"""The language-model head: hidden states to logits, with what some architectures do to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Adjustment:
    """What follows the output embedding: logits · scale, then softcap · tanh(logits / softcap)."""

    scale: float = 1.0
    softcap: float | None = None

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.scale != 1.0 or self.softcap is not None

    def apply_(self, logits: Tensor) -> Tensor:
        """Adjusts logits in place."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def pull_(self, gradient: Tensor, adjusted: Tensor) -> Tensor:
        """Turns the gradient in adjusted logits into that in the bare ones, in place."""
        if self.softcap is not None:
            gradient.mul_(1 - (adjusted / self.softcap).square_())
        if self.scale != 1.0:
            gradient.mul_(self.scale)
        return gradient


class Head:
    """A model's output embedding and its soft-cap or scaling.

    Holds the output embedding without owning it, so that the policy's parameters have one owner.

    Args:
        output_embedding: the linear layer [V, D], tied to the input or not, or a module around it
            such as an adapter.
        config: the model's configuration; read for `final_logit_softcapping` (Gemma 2),
            `logit_scale` (Cohere) and `logits_scaling` (Granite).
        chunk: positions whose logits are held at once; `auto` leaves it to the free memory, see
            `ops.memory.HeadPlan`.
    """

    def __init__(
        self, output_embedding: nn.Module, config: Any, chunk: int | Literal["auto"] = "auto"
    ) -> None:
        self.output_embedding = output_embedding
        self.chunk = chunk
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        self.adjustment = Adjustment(scale, getattr(config, "final_logit_softcapping", None))

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] of hidden states [N, D]; at least in fp32 where they are adjusted."""
        logits: Tensor = self.output_embedding(hidden)
        if not self.adjustment.changes:
            return logits
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        logits = logits * self.adjustment.scale
        softcap = self.adjustment.softcap
        return logits if softcap is None else torch.tanh(logits / softcap) * softcap

    @property
    def vocab_size(self) -> int:
        """V."""
        features = getattr(self.output_embedding, "out_features", None)
        weight: Any = self.output_embedding.weight
        return int(weight.shape[0] if features is None else features)

    @property
    def plain(self) -> bool:
        """Whether the output embedding is a bare linear layer, with nothing hooked around it."""
        module = self.output_embedding
        hooks = (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        return type(module) is nn.Linear and not any(hooks) and "forward" not in vars(module)
