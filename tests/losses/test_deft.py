"""DEFT's reward against hand arithmetic, its floor, and the gradient that it leaves."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plot_exp.config.losses import DEFTConfig
from plot_exp.losses.deft import DEFT, distribution_reward

from loss_scores import context, ranked, scores, totals

# Q_diff = (½ − 0, ½ − ¼, 0 − ¾, 0); the last token is special.
FACTS = context(torch.zeros(4, 1), [2, 2, 0, 1], [0, 1, 3, 0], allowed=[True, True, True, False])
SIGNED = [0.5, 0.25, -0.75]
PAIR = ranked((2, 1))


def found(summed: list[float], **options: object) -> tuple[float, dict[str, float]]:
    """The term where the chosen side's two positions sum to these log-probabilities."""
    tensor = torch.tensor(summed, dtype=torch.float64)
    policy = scores([[-1.0, -1.0], [-1.0]], {("chosen", "log_batch"): tensor})
    result = DEFT(DEFTConfig(**options), FACTS)(policy, None, PAIR, totals(PAIR))
    return result.loss.item(), {name: float(value) for name, value in result.metrics.items()}


def test_reward_by_hand() -> None:
    """Sums (−2, −4, −6, −99) over two positions: means −1, −2, −3. R = −½ − ½ + 9/4 = 1.25."""
    loss, metrics = found([-2, -4, -6, -99])

    assert loss == pytest.approx(-1.25, rel=1e-6)
    assert metrics == {"reward": pytest.approx(1.25, rel=1e-6), "floored": 0.0}


def test_the_floor_holds_disfavoured_tokens_only() -> None:
    """Floor −2.5: the third token's −3 counts as −2.5, the first token's −30 stays."""
    loss, metrics = found([-60, -4, -6, 0], floor=-2.5)

    assert loss == pytest.approx(-(0.5 * -30 + 0.25 * -2 - 0.75 * -2.5), rel=1e-6)
    assert metrics["floored"] == 1.0


def test_without_a_floor_there_is_no_bound_and_with_one_there_is() -> None:
    signed = torch.tensor(SIGNED, dtype=torch.float64)
    falling = torch.tensor([[-1.0, -1.0, -(10.0**n)] for n in range(1, 8)], dtype=torch.float64)

    unbounded = -distribution_reward(falling, signed)
    bounded = -distribution_reward(falling, signed, floor=-20.0)

    assert unbounded[-1] < -1e6
    assert bounded.min().item() >= -0.75 * 20


@given(st.lists(st.floats(-500, 0), min_size=3, max_size=3), st.floats(-100, -0.1))
def test_never_below_the_floors_bound(means: list[float], floor: float) -> None:
    """−R ≥ floor·Σ|Q₋|, since the favoured tokens' part of −R is never negative."""
    reward = distribution_reward(
        torch.tensor(means, dtype=torch.float64), torch.tensor(SIGNED).double(), floor
    )

    assert -reward.item() >= 0.75 * floor - 1e-9


def test_tokens_without_a_preference_may_be_impossible() -> None:
    mean = torch.tensor([-1.0, -math.inf])

    assert distribution_reward(mean, torch.tensor([1.0, 0.0])).item() == -1.0


def test_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    term = DEFT(DEFTConfig(floor=-1.5), FACTS)

    def loss(values: Tensor) -> Tensor:
        summed = torch.log_softmax(values, -1).sum(0)
        policy = scores([[-1.0, -1.0], [-1.0]], {("chosen", "log_batch"): summed})
        return term(policy, None, PAIR, totals(PAIR)).loss

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))


def test_above_the_floor_the_gradient_in_the_logits_is_minus_the_preference() -> None:
    """ΣQ_diff = 0, so the normaliser drops out: ∂(−R)/∂logits = −Q_diff, whatever the logits."""
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    summed = 2 * torch.log_softmax(logits, -1)
    policy = scores([[-1.0, -1.0], [-1.0]], {("chosen", "log_batch"): summed})

    loss = DEFT(DEFTConfig(), FACTS)(policy, None, PAIR, totals(PAIR)).loss
    (gradient,) = torch.autograd.grad(loss, [logits])

    assert gradient.tolist() == pytest.approx([-0.5, -0.25, 0.75, 0.0], abs=1e-7)


def test_without_any_preference_there_is_nothing_to_reward() -> None:
    """The loss would be zero for ever; a threshold that nothing passes counts as none."""
    alike = context(torch.zeros(3, 1), [2, 1, 1], [2, 1, 1])
    with pytest.raises(ValueError, match="no token to reward"):
        DEFT(DEFTConfig(), alike)
    slight = context(torch.zeros(3, 1), [3, 1, 1], [2, 2, 1])
    with pytest.raises(ValueError, match="no difference is significant"):
        DEFT(DEFTConfig(significance=9.0), slight)
