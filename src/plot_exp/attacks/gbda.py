"""GBDA, gradient-based distributional attack: Guo et al. 2021, arXiv 2104.13733, equation 5.

Logits over tokens are sampled with the Gumbel-softmax; the model reads the mixture of embeddings.
The token of each position is that of the largest logit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plot_exp.attacks.prompt import AttackedPrompt
from plot_exp.attacks.soft import SoftAttack
from plot_exp.config.attacks import GBDAConfig


class GBDA(SoftAttack):
    """White-box, on token logits."""

    name = "gbda"
    config: GBDAConfig

    def begin(self, prompt: AttackedPrompt, seed: int) -> Tensor:
        """Normal noise around equal logits."""
        config, vocabulary = self.config, self.model.vocabulary
        self.barred = ~vocabulary.allowed(config.tokens, ascii_only=False, opens=prompt.opens)
        self.barred = self.barred.to(self.model.device)
        shape = (config.cases, config.tokens, len(self.model.table))
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return (config.noise * noise).to(self.model.device)

    def embed(self, variable: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """The mixture of embeddings that a relaxed sample of tokens weighs."""
        uniform = torch.rand(variable.shape, generator=generator).to(variable.device)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        logits = (variable + gumbel).masked_fill(self.barred, -float("inf"))
        weights = torch.softmax(logits / self.temperature(step), dim=-1)
        return weights.to(self.model.table.dtype) @ self.model.table

    def temperature(self, step: int) -> float:
        """Linear from its start at the first step to its end at the last."""
        config = self.config
        way = step / max(config.steps - 1, 1)
        return config.temperature_start + way * (config.temperature_end - config.temperature_start)

    def tokens(self, variable: Tensor) -> Tensor:
        """The allowed token of the largest logit at each position."""
        return variable.masked_fill(self.barred, -float("inf")).argmax(dim=-1)
