"""What is logged of a step, against hand arithmetic."""

from __future__ import annotations

import pytest
import torch

from plot_exp.training.coupling import Part
from plot_exp.training.metrics import response_metrics

from loss_scores import ranked, scores


def test_share_of_quantiles_violated_by_hand() -> None:
    """Log-ratios chosen 3, 0 and rejected 2, 1: sorted (0, 3) against (1, 2), so half."""
    part = Part(
        scores([[3.0], [2.0], [0.0], [1.0]]),
        scores([[0.0], [0.0], [0.0], [0.0]]),
        ranked((1, 1), (1, 1)),
    )

    assert float(response_metrics("train", part, 0.1)["train/quantiles_violated"]) == 0.5


def test_without_a_rejected_response_there_are_no_quantiles_to_compare() -> None:
    part = Part(scores([[3.0]]), scores([[0.0]]), ranked((1,)))

    assert "train/quantiles_violated" not in response_metrics("train", part, 0.1)


def test_reward_margin_and_accuracy_by_hand() -> None:
    """β(Δ) with Δ = 1, −1: margin 0, accuracy ½."""
    part = Part(
        scores([[3.0], [2.0], [0.0], [1.0]]),
        scores([[0.0], [0.0], [0.0], [0.0]]),
        ranked((1, 1), (1, 1)),
    )
    found = response_metrics("train", part, 0.1)

    assert float(found["train/reward_margin"]) == pytest.approx(0.0)
    assert float(found["train/reward_accuracy"]) == 0.5
    assert torch.is_tensor(found["train/reward_accuracy"])
