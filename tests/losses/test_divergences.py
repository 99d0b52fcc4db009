"""KL, JS, squared error and ULD to PLOT's target, against hand arithmetic, SciPy and POT."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from plot_exp.config.losses import JSConfig, KLConfig, MSEConfig, ULDConfig
from plot_exp.losses.distribution import DistributionTerm
from plot_exp.losses.js import JS
from plot_exp.losses.kl import KL, kl_divergence
from plot_exp.losses.mse import MSE
from plot_exp.losses.uld import ULD

from loss_scores import context, ranked, scores, totals

# Q_diff = (¾ − 0, ¼ − ½, 0 − ½, 0): relu leaves the first token alone; the last is special.
FACTS = context(
    torch.zeros(4, 1),
    [3, 1, 0, 0],
    [0, 1, 1, 5],
    allowed=[True, True, True, False],
    reference=[0.1, 0.2, 0.3, 0.4],
)
PAIR = ranked((1, 1))


def spread_target(kind: type[DistributionTerm], config: Any) -> DistributionTerm:
    """The term with the target (½, ½, 0, 0)."""
    term = kind(config, FACTS)
    term.target = torch.tensor([0.5, 0.5, 0, 0], dtype=torch.float64)
    return term


def value(term: DistributionTerm, mass: list[float]) -> float:
    tensor = torch.tensor(mass, dtype=torch.float64)
    policy = scores([[-1.0], [-1.0]], {("chosen", "batch"): tensor})
    return term(policy, None, PAIR, totals(PAIR)).loss.item()


def test_the_target_is_plots() -> None:
    assert KL(KLConfig(), FACTS).target.tolist() == [1, 0, 0, 0]
    shifted = KL(KLConfig(transform="shift"), FACTS).target
    # ¾ + ½, −¼ + ½, 0 over their sum 1.5.
    assert shifted.tolist() == pytest.approx([5 / 6, 1 / 6, 0, 0], rel=1e-6)


def test_by_hand_with_special_mass_left_out() -> None:
    """Summed softmax (2, 4, 2, 8) without the special token is p = (¼, ½, ¼); q = (½, ½, 0).

    KL(q‖p) = ½ log 2 + ½ log 1; squares: 1/16 + 0 + 1/16, over V = 4 tokens; sorted p (¼, ¼, ½)
    and q (0, ½, ½): ¼ + ¼. JS: m = (3/8, ½, 1/8), so KL(p‖m) = ¼ log(2/3) + ¼ log 2 and
    KL(q‖m) = ½ log(4/3).
    """
    mass = [2.0, 4.0, 2.0, 8.0]

    assert value(spread_target(KL, KLConfig()), mass) == pytest.approx(math.log(2) / 2, rel=1e-12)
    assert value(spread_target(MSE, MSEConfig()), mass) == pytest.approx(1 / 32, rel=1e-12)
    assert value(spread_target(MSE, MSEConfig(reduction="sum")), mass) == pytest.approx(1 / 8)
    assert value(spread_target(ULD, ULDConfig()), mass) == pytest.approx(0.5, rel=1e-12)
    js = (math.log(2 / 3) / 4 + math.log(2) / 4 + math.log(4 / 3) / 2) / 2
    assert value(spread_target(JS, JSConfig()), mass) == pytest.approx(js, rel=1e-12)


def test_reverse_kl_is_infinite_at_a_target_with_zeros_and_finite_without_mass_there() -> None:
    """q = (½, ½, 0): p = (¼, ½, ¼) has mass on the zero; p = (¼, ¾, 0) has none."""
    reverse = spread_target(KL, KLConfig(direction="reverse"))

    assert value(reverse, [1, 2, 1, 0]) == math.inf
    expected = math.log(1 / 2) / 4 + 3 * math.log(3 / 2) / 4
    assert value(reverse, [1, 3, 0, 9]) == pytest.approx(expected, rel=1e-12)


def test_forward_kl_is_infinite_where_the_model_has_no_mass_at_all() -> None:
    assert value(spread_target(KL, KLConfig()), [0, 1, 1, 0]) == math.inf


def test_js_at_disjoint_supports_is_log_two_and_no_more() -> None:
    assert value(spread_target(JS, JSConfig()), [0, 0, 3, 1]) == pytest.approx(math.log(2))


def test_uld_cannot_tell_tokens_apart() -> None:
    """All the mass on disliked tokens, spread like the target, costs nothing."""
    assert value(spread_target(ULD, ULDConfig()), [0, 1, 1, 0]) == pytest.approx(0, abs=1e-12)


masses = st.lists(st.sampled_from([0.0, 1e-30, 0.1, 0.5, 1.0, 3.0]), min_size=1, max_size=8)


@given(masses, masses, st.integers(0, 5))
def test_against_scipy_over_sizes_ties_and_zeros(
    left: list[float], right: list[float], seed: int
) -> None:
    size = min(len(left), len(right))
    p, q = np.array(left[:size]), np.array(right[:size])
    if not p.sum() or not q.sum():
        return
    p, q = p / p.sum(), q / q.sum()
    tp, tq = torch.tensor(p), torch.tensor(q)

    assert kl_divergence(tp, tq).item() == pytest.approx(stats.entropy(p, q), rel=1e-10, abs=1e-14)
    middle = (tp + tq) / 2
    js = ((kl_divergence(tp, middle) + kl_divergence(tq, middle)) / 2).item()
    assert js == pytest.approx(jensenshannon(p, q) ** 2, rel=1e-8, abs=1e-12)
    assert -1e-15 <= js <= math.log(2) + 1e-12
    # Where all ranks are one apart, sorted differences are W1 between the values as samples.
    uld = (tp.sort().values - tq.sort().values).abs().sum().item()
    assert uld == pytest.approx(size * stats.wasserstein_distance(p, q), abs=1e-12)


TERMS = [
    (KL, KLConfig()),
    (KL, KLConfig(direction="reverse", transform="softmax")),
    (JS, JSConfig()),
    (MSE, MSEConfig()),
    (ULD, ULDConfig(transform="softmax")),
]


@pytest.mark.parametrize(("kind", "config"), TERMS)
@pytest.mark.parametrize("pool", ["batch", "response", "position"])
def test_gradient_against_finite_differences(
    kind: type[DistributionTerm], config: Any, pool: str
) -> None:
    term = kind(config.model_copy(update={"distribution": pool, "side": "both"}), FACTS)
    responses = ranked((1, 1), (1, 1))
    generator = torch.Generator().manual_seed(0)
    shape = (2, 4) if pool == "batch" else (2, 2, 4)
    mass = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1

    def loss(values: Tensor) -> Tensor:
        sides = {("chosen", pool): values[0], ("rejected", pool): values[1]}
        policy = scores([[-1.0]] * 4, sides)
        return term(policy, None, responses, totals(responses)).loss

    assert torch.autograd.gradcheck(loss, (mass.requires_grad_(),))


@pytest.mark.parametrize(("kind", "config"), TERMS)
def test_the_target_itself_costs_nothing_and_the_gradient_is_centred(
    kind: type[DistributionTerm], config: Any
) -> None:
    term = kind(config, FACTS)
    assert value(term, term.target.tolist()) == pytest.approx(0, abs=1e-12)

    logits = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    policy = scores([[-1.0], [-1.0]], {("chosen", "batch"): torch.softmax(logits, -1)})
    loss = term(policy, None, PAIR, totals(PAIR)).loss
    (gradient,) = torch.autograd.grad(loss, [logits])
    assert loss.item() > 0
    assert gradient.sum().item() == pytest.approx(0, abs=1e-12)
    assert gradient[3].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("kind", "config"), TERMS)
def test_one_allowed_token_leaves_nothing_to_prefer(
    kind: type[DistributionTerm], config: Any
) -> None:
    facts = context(torch.zeros(2, 1), [2, 1], [1, 3], allowed=[True, False])
    with pytest.raises(ValueError, match="no preference distribution"):
        kind(config, facts)


def test_a_token_that_underflows_gives_no_nan_in_the_gradient() -> None:
    """In fp32, p = e^−200 is zero, on a token of the target and on one off it."""
    for kind, config in TERMS[1:]:
        term = kind(config, FACTS)
        logits = torch.tensor([0.0, -200.0, -200.0, 0.0], requires_grad=True)
        policy = scores([[-1.0], [-1.0]], {("chosen", "batch"): torch.softmax(logits, -1)})
        loss = term(policy, None, PAIR, totals(PAIR)).loss
        (gradient,) = torch.autograd.grad(loss, [logits])
        assert torch.isfinite(gradient).all(), kind
