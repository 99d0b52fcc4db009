"""AOT against hand arithmetic, SciPy and NumPy, finite differences, and DPO where they meet."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from plot_exp.config.losses import AOTConfig, AOTUnpairedConfig, DPOConfig
from plot_exp.data.collate import Responses, describe_responses
from plot_exp.losses.aot import AOT
from plot_exp.losses.aot_unpaired import AOTUnpaired
from plot_exp.losses.base import Term
from plot_exp.losses.dominance import (
    quantile_differences,
    quantiles,
    relaxed_violation,
    violated_share,
)
from plot_exp.losses.dpo import DPO
from plot_exp.ops.scores import Scores

from loss_scores import context, ranked, scores, totals
from scoring_models import example

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])
RELAXATIONS = ["logistic", "squared_hinge", "least_squares"]
samples = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=9)


def labelled(labels: list[bool]) -> Responses:
    """One-token responses to as many prompts."""
    return describe_responses([example([1], [[2]], desirable=(label,)) for label in labels])


def one_token(values: list[float] | Tensor) -> Scores:
    return scores([[float(value)] for value in values])


def value(term: Term, policy: Scores, reference: Scores, responses: Responses) -> float:
    return term(policy, reference, responses, totals(responses)).loss.item()


def h(x: float, beta: float, relaxation: str) -> float:
    if relaxation == "logistic":
        return max(0.0, -beta * x) + math.log1p(math.exp(-abs(beta * x)))
    return max(0.0, beta - x) ** 2 if relaxation == "squared_hinge" else (beta - x) ** 2


def test_paired_by_hand() -> None:
    """Margins s: −1+3 = 2, −4+1 = −3; s_ref: −2+1 = −1, −1+2 = 1. Sorted (−3, 2) and (−1, 1), so
    x = (−2, 1). With β = ½, squared hinge: (½+2)² = 6.25 and 0, mean 3.125; least squares:
    (6.25 + 0.25)/2 = 3.25. Half of the quantiles are violated.
    """
    policy, reference = one_token([-1, -3, -4, -1]), one_token([-2, -1, -1, -2])
    responses = ranked((1, 1), (1, 1))

    hinge = AOT(AOTConfig(beta=0.5, relaxation="squared_hinge"), NOTHING)
    squares = AOT(AOTConfig(beta=0.5, relaxation="least_squares"), NOTHING)
    logistic = AOT(AOTConfig(beta=0.5), NOTHING)

    assert value(hinge, policy, reference, responses) == pytest.approx(3.125, rel=1e-12)
    assert value(squares, policy, reference, responses) == pytest.approx(3.25, rel=1e-12)
    expected = (math.log(1 + math.e) + math.log(1 + math.exp(-0.5))) / 2
    assert value(logistic, policy, reference, responses) == pytest.approx(expected, rel=1e-12)
    metrics = logistic(policy, reference, responses, totals(responses)).metrics
    assert metrics["quantiles_violated"].item() == 0.5


def test_unpaired_by_hand_with_differing_numbers() -> None:
    """Log-ratios: desirable 0, 4, 1; undesirable 3, 1. Levels 0, ½, 1: (0, 1, 4) and, with the
    middle between 1 and 3, (1, 2, 3). x = (−1, −1, 1); least squares with β = 1: (4 + 4 + 0)/3.
    """
    responses = labelled([True, False, True, True, False])
    policy, reference = one_token([-2, 1, 3, 0, -1]), one_token([-2, -2, -1, -1, -2])
    term = AOTUnpaired(AOTUnpairedConfig(beta=1.0, relaxation="least_squares"), NOTHING)

    assert value(term, policy, reference, responses) == pytest.approx(8 / 3, rel=1e-12)
    metrics = term(policy, reference, responses, totals(responses)).metrics
    assert metrics["quantiles_violated"].item() == pytest.approx(2 / 3)


@given(st.lists(st.floats(-300, 300), min_size=4, max_size=4), st.floats(0.01, 3))
def test_one_pair_is_dpo(values: list[float], beta: float) -> None:
    policy, reference, responses = one_token(values[:2]), one_token(values[2:]), ranked((1, 1))
    dpo = value(DPO(DPOConfig(beta=beta), NOTHING), policy, reference, responses)

    paired = value(AOT(AOTConfig(beta=beta), NOTHING), policy, reference, responses)
    unpaired = AOTUnpaired(AOTUnpairedConfig(beta=beta), NOTHING)

    assert paired == pytest.approx(dpo, rel=1e-10, abs=1e-10)
    assert value(unpaired, policy, reference, responses) == pytest.approx(dpo, rel=1e-10, abs=1e-10)


@given(samples, samples, st.floats(0.001, 3), st.sampled_from(RELAXATIONS))
def test_any_samples_agree_with_exact_fractions(
    better: list[float], worse: list[float], beta: float, relaxation: str
) -> None:
    """Interpolated quantiles written in fractions, one level at a time."""

    def quantile(sample: list[float], place: int, count: int) -> Fraction:
        ordered = sorted(map(Fraction, sample))
        if count == 1:
            return ordered[0]
        position = Fraction(place * (len(ordered) - 1), count - 1)
        low = position.numerator // position.denominator
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    count = max(len(better), len(worse))
    exact = [
        quantile(better, place, count) - quantile(worse, place, count) for place in range(count)
    ]
    difference = quantile_differences(
        torch.tensor(better, dtype=torch.float64), torch.tensor(worse, dtype=torch.float64)
    )

    assert difference.tolist() == pytest.approx([float(x) for x in exact], rel=1e-10, abs=1e-9)
    found = relaxed_violation(difference, beta, relaxation).mean().item()
    expected = sum(h(float(x), beta, relaxation) for x in exact) / count
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(samples, st.integers(0, 20))
def test_quantiles_are_numpys_linear_ones(sample: list[float], more: int) -> None:
    count = len(sample) + more
    levels = np.linspace(0, 1, count) if count > 1 else [0.0]

    found = quantiles(torch.tensor(sample, dtype=torch.float64), count)

    assert found.numpy() == pytest.approx(np.quantile(sample, levels), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=12))
def test_least_squares_at_zero_is_squared_wasserstein_2(pairs: list[tuple[int, int]]) -> None:
    """Σ(u_(k) − v_(k))² is the cheapest matching's, and Σ|u_(k) − v_(k)| SciPy's W1; ties too."""
    u, v = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    difference = quantile_differences(u, v)

    assert difference.abs().mean().item() == pytest.approx(
        stats.wasserstein_distance(u.numpy(), v.numpy()), abs=1e-12
    )
    assert difference.mean().item() == pytest.approx((u - v).mean().item(), abs=1e-12)


@given(samples, st.floats(0, 100))
def test_a_shifted_sample_dominates(sample: list[float], shift: float) -> None:
    lower = torch.tensor(sample, dtype=torch.float64)

    assert violated_share(lower + shift, lower).item() == 0
    assert violated_share(lower - 1 - shift, lower).item() == 1


def test_the_order_of_pairs_does_not_matter_but_their_values_do() -> None:
    """Where it differs from DPO: margins and reference margins are matched by rank."""
    responses = ranked((1, 1), (1, 1))
    term = AOT(AOTConfig(beta=1.0), NOTHING)
    policy = one_token([3, 0, 0, 0])

    one = value(term, policy, one_token([1, 0, 2, 0]), responses)
    other = value(term, policy, one_token([2, 0, 1, 0]), responses)

    assert one == other
    dpo = DPO(DPOConfig(beta=1.0), NOTHING)
    assert value(dpo, policy, one_token([1, 0, 2, 0]), responses) != pytest.approx(
        value(dpo, policy, one_token([2, 0, 1, 0]), responses)
    )


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("paired", [True, False])
def test_gradient_against_finite_differences(relaxation: str, paired: bool) -> None:
    if paired:
        term: Term = AOT(AOTConfig(beta=0.7, relaxation=relaxation), NOTHING)
        responses = ranked((1, 1, 1), (1, 1))
    else:
        term = AOTUnpaired(AOTUnpairedConfig(beta=0.7, relaxation=relaxation), NOTHING)
        responses = labelled([True, True, False, True, False])
    generator = torch.Generator().manual_seed(0)
    reference = one_token(torch.randn(5, generator=generator))

    def loss(token_logps: Tensor) -> Tensor:
        policy = reference.replace_tensors([token_logps])
        return term(policy, reference, responses, totals(responses)).loss

    values = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(loss, (values,))


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("labels", [[True], [False, False]])
def test_an_empty_side_is_zero_with_zero_gradient(relaxation: str, labels: list[bool]) -> None:
    responses = labelled(labels)
    policy = one_token([-1.0] * len(labels)).leaves()
    paired = AOT(AOTConfig(relaxation=relaxation), NOTHING)
    for term in (paired, AOTUnpaired(AOTUnpairedConfig(relaxation=relaxation), NOTHING)):
        found = term(policy, policy.detach(), responses, totals(responses))
        (gradient,) = torch.autograd.grad(found.loss, [policy.token_logps])
        assert found.loss.item() == 0
        assert not gradient.any()
        assert found.metrics["quantiles_violated"].item() == 0


def test_extreme_log_probabilities_stay_finite_in_fp32() -> None:
    difference = torch.tensor([-1e6, 1e6])

    found = relaxed_violation(difference, 0.01, "logistic")

    assert found.tolist() == pytest.approx([1e4, 0.0])
