"""PEZ, hard prompts made easy: Wen et al. 2023, arXiv 2302.03668, algorithm 1.

The forward pass reads the nearest token of each soft one (by cosine); its gradient moves the soft.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plot_exp.attacks.finish import random_slots
from plot_exp.attacks.model import AttackedModel
from plot_exp.attacks.prompt import AttackedPrompt
from plot_exp.attacks.soft import SoftAttack
from plot_exp.config.attacks import PEZConfig


class PEZ(SoftAttack):
    """White-box, on soft embeddings."""

    name = "pez"

    def __init__(self, model: AttackedModel, config: PEZConfig, seed: int) -> None:
        super().__init__(model, config, seed)
        self.directions = F.normalize(model.table.float(), dim=1)

    def begin(self, prompt: AttackedPrompt, seed: int) -> Tensor:
        """The embeddings of random tokens."""
        config, vocabulary = self.config, self.model.vocabulary
        self.barred = ~vocabulary.allowed(config.tokens, ascii_only=False, opens=prompt.opens)
        self.barred = self.barred.to(self.model.device)
        ids = random_slots(self.model, prompt, config.cases, config.tokens, seed)
        return self.model.table[ids.to(self.model.device)].float().clone()

    def embed(self, variable: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """The nearest tokens' embeddings, through which the gradient passes unchanged."""
        nearest = self.model.table[self.tokens(variable.detach())].to(variable.dtype)
        return variable + (nearest - variable).detach()

    def tokens(self, variable: Tensor) -> Tensor:
        """The allowed token of the largest cosine at each position."""
        cosines = F.normalize(variable, dim=-1) @ self.directions.T
        return cosines.masked_fill(self.barred, -float("inf")).argmax(dim=-1)
