"""DPO against hand arithmetic, an independent formula and finite differences."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from plot_exp.config.losses import DPOConfig
from plot_exp.losses.dpo import DPO, dpo_loss

from loss_scores import context, ranked, scores, totals

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])


def test_one_pair_by_hand() -> None:
    """s = (−3, −5), s_ref = (−4, −4): Δ = (−3 + 4) − (−5 + 4) = 2; β = ½ gives −log σ(1)."""
    policy, reference = scores([[-1.0, -2.0], [-5.0]]), scores([[-2.0, -2.0], [-4.0]])
    responses = ranked((2, 1))

    loss = DPO(DPOConfig(beta=0.5), NOTHING)(policy, reference, responses, totals(responses)).loss

    assert math.isclose(loss.item(), math.log(1 + math.exp(-1)), rel_tol=1e-12)


def test_label_smoothing_by_hand() -> None:
    """βΔ = 1, ε = 0.1: 0.9·log(1 + e^−1) + 0.1·log(1 + e)."""
    loss = dpo_loss(torch.tensor([2.0], dtype=torch.float64), beta=0.5, label_smoothing=0.1)

    expected = 0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1))
    assert math.isclose(loss.item(), expected, rel_tol=1e-12)


def test_a_ranking_of_three_is_two_pairs_with_the_best() -> None:
    """Log-ratios 1, 0, −1: the mean of −log σ(β) and −log σ(2β), with β = 1."""
    policy, reference = scores([[-1.0], [-2.0], [-3.0]]), scores([[-2.0], [-2.0], [-2.0]])
    responses = ranked((1, 1, 1))

    loss = DPO(DPOConfig(beta=1.0), NOTHING)(policy, reference, responses, totals(responses)).loss

    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2
    assert math.isclose(loss.item(), expected, rel_tol=1e-12)


@given(
    st.lists(st.floats(-300, 300), min_size=4, max_size=4),
    st.floats(0.01, 5),
    st.floats(0, 0.49),
)
def test_any_log_ratios_agree_with_the_logistic_form(
    values: list[float], beta: float, smoothing: float
) -> None:
    policy = scores([[values[0]], [values[1]]])
    reference = scores([[values[2]], [values[3]]])
    responses = ranked((1, 1))
    config = DPOConfig(beta=beta, label_smoothing=smoothing)

    loss = DPO(config, NOTHING)(policy, reference, responses, totals(responses)).loss.item()

    x = beta * ((values[0] - values[2]) - (values[1] - values[3]))
    log_one_plus = max(0.0, -x) + math.log1p(math.exp(-abs(x)))
    assert math.isclose(loss, log_one_plus + smoothing * x, rel_tol=1e-9, abs_tol=1e-9)


def test_gradient_against_finite_differences() -> None:
    responses = ranked((2, 1), (1, 3))
    generator = torch.Generator().manual_seed(0)
    values = -3 * torch.rand(7, generator=generator, dtype=torch.float64)
    reference = scores([[-1.0, -1.0], [-2.0], [-1.0], [-1.0, -2.0, -3.0]])
    term = DPO(DPOConfig(beta=0.7, label_smoothing=0.2), NOTHING)

    def loss(token_logps: torch.Tensor) -> torch.Tensor:
        policy = reference.replace_tensors([token_logps])
        return term(policy, reference, responses, totals(responses)).loss

    assert torch.autograd.gradcheck(loss, (values.requires_grad_(),))


def test_a_batch_without_pairs_is_zero_with_zero_gradient() -> None:
    policy = scores([[-1.0]]).leaves()
    responses = ranked((1,))

    loss = DPO(DPOConfig(), NOTHING)(policy, policy.detach(), responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(loss, [policy.token_logps])

    assert loss.item() == 0
    assert gradient.tolist() == [0.0]
