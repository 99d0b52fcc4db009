"""SFT is the mean negative log-likelihood of the chosen responses' tokens."""

from __future__ import annotations

import torch

from plot_exp.config.losses import SFTConfig
from plot_exp.losses.sft import SFT

from loss_scores import context, ranked, scores, totals

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])
POLICY = scores([[-1.0, -2.0, -3.0], [-9.0], [-4.0], [-9.0, -9.0]])
RESPONSES = ranked((3, 1), (1, 2))


def test_token_reduction_by_hand() -> None:
    """Chosen tokens: 1 + 2 + 3 and 4, so (6 + 4) / (3 + 1) = 2.5."""
    loss = SFT(SFTConfig(), NOTHING)(POLICY, None, RESPONSES, totals(RESPONSES)).loss

    assert loss.item() == 2.5


def test_sequence_reduction_by_hand() -> None:
    """Means of the chosen responses: 2 and 4, so 3."""
    term = SFT(SFTConfig(reduction="sequence"), NOTHING)

    assert term(POLICY, None, RESPONSES, totals(RESPONSES)).loss.item() == 3.0
