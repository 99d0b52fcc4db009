"""IPO, SimPO, CPO, ORPO and DPOP by hand, at their edges, and where they meet other objectives."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plot_exp.config.losses import TERMS
from plot_exp.losses.base import Term
from plot_exp.losses.orpo import CERTAIN, log_odds

from loss_scores import context, ranked, scores, totals

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])
NAMES = ["ipo", "simpo", "cpo", "orpo", "dpop"]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("ipo", {"reduction": "mean"}),
    ("cpo", {"label_smoothing": 0.3, "reduction": "sequence"}),
    ("orpo", {"odds_weight": 2.0, "reduction": "sequence"}),
]


def build(name: str, **settings: Any) -> Term:
    module = importlib.import_module(f"plot_exp.losses.{name}")
    term: Term = module.TERM(TERMS[name](**settings), NOTHING)
    return term


def value(
    term: Term, policy: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]
) -> float:
    """The term on pairs: rows are chosen, rejected, chosen, rejected, ..."""
    lengths = [len(row) for row in policy]
    responses = ranked(*zip(lengths[::2], lengths[1::2], strict=True))
    result = term(scores(policy), scores(reference), responses, totals(responses))
    return result.loss.item()


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


POLICY, REFERENCE = [[-1.0, -2.0], [-5.0]], [[-2.0, -2.0], [-4.0]]


def test_ipo_by_hand() -> None:
    """s − s_ref = (1, −1): Δ = 2, target 1/(2·0.5) = 1; per token (½, −1): Δ = 1.5."""
    assert value(build("ipo", beta=0.5), POLICY, REFERENCE) == pytest.approx(1.0, rel=1e-12)
    mean = build("ipo", beta=0.5, reduction="mean")
    assert value(mean, POLICY, REFERENCE) == pytest.approx(0.25, rel=1e-12)


def test_simpo_by_hand() -> None:
    """s̄ = (−1.5, −5): −log σ(2·3.5 − 1)."""
    term = build("simpo", beta=2.0, gamma=1.0)
    assert value(term, POLICY, REFERENCE) == pytest.approx(softplus(-6), rel=1e-12)


def test_cpo_by_hand() -> None:
    """s = (−3, −5), β ½: −log σ(1); likelihood 3 over 2 tokens, times ½."""
    term = build("cpo", beta=0.5, sft_weight=0.5)
    assert value(term, POLICY, REFERENCE) == pytest.approx(softplus(-1) + 0.75, rel=1e-12)


def test_the_likelihood_of_cpo_is_that_of_the_tokens_or_of_the_responses() -> None:
    """Chosen (−3 over 2) and (−4 over 1): 7/3 by token, (1.5 + 4)/2 by response."""
    policy = [*POLICY, [-4.0], [-4.0]]
    rest = (softplus(-2) + softplus(0)) / 2
    token, sequence = (build("cpo", beta=1.0, reduction=name) for name in ("token", "sequence"))
    assert value(token, policy, policy) == pytest.approx(rest + 7 / 3, rel=1e-12)
    assert value(sequence, policy, policy) == pytest.approx(rest + 2.75, rel=1e-12)


def test_orpo_by_hand() -> None:
    """p = ½ and ⅕: odds 1 and ¼, so σ(log 4) = ⅘; likelihood log 2, λ = 2."""
    term = build("orpo", odds_weight=2.0)
    found = value(term, [[math.log(0.5)] * 2, [math.log(0.2)]], REFERENCE)
    assert found == pytest.approx(math.log(2) - 2 * math.log(0.8), rel=1e-12)


def test_dpop_by_hand() -> None:
    """Chosen up by 1: DPO. Chosen down by 1 and rejected by 4: Δ = 3, minus λ·1 = 2."""
    term = build("dpop", beta=0.5, penalty=2.0)
    assert value(term, POLICY, REFERENCE) == pytest.approx(softplus(-1), rel=1e-12)
    fallen = value(term, [[-3.0], [-8.0]], [[-2.0], [-4.0]])
    assert fallen == pytest.approx(softplus(-0.5 * (3 - 2)), rel=1e-12)


def test_dpop_reports_the_share_of_chosen_responses_that_fell() -> None:
    responses = ranked((1, 1), (1, 1), (1, 1), (1, 1))
    policy = scores([[-1.0], [-1.0]] * 3 + [[-9.0], [-9.0]])
    reference = scores([[-2.0], [-1.0]] * 4)
    result = build("dpop")(policy, reference, responses, totals(responses))
    assert result.metrics["fallen"].item() == 0.25


def test_without_a_penalty_dpop_is_dpo() -> None:
    policy, reference = [[-3.0], [-8.0]], [[-2.0], [-4.0]]
    dpop, dpo = build("dpop", beta=0.3, penalty=0.0), build("dpo", beta=0.3)
    assert value(dpop, policy, reference) == value(dpo, policy, reference)


def test_cpo_is_dpo_under_a_uniform_reference_and_the_likelihood() -> None:
    """Of equal lengths a uniform reference cancels."""
    policy = [[-1.0, -2.0], [-3.0, -1.5]]
    flat = [[-4.0, -4.0], [-4.0, -4.0]]
    plain = value(build("dpo", beta=0.2), policy, flat) + value(build("sft"), policy, flat)
    assert value(build("cpo", beta=0.2), policy, flat) == pytest.approx(plain, rel=1e-12)


@given(st.lists(st.floats(-300, -0.01), min_size=4, max_size=4))
def test_any_pair_agrees_with_the_plain_formula(values: list[float]) -> None:
    w, bad, w_ref, bad_ref = values
    policy, reference = [[w / 2, w / 2], [bad]], [[w_ref / 2, w_ref / 2], [bad_ref]]
    delta = (w - w_ref) - (bad - bad_ref)
    expected = {
        "ipo": (delta - 5) ** 2,
        "simpo": softplus(-(2.5 * (w / 2 - bad) - 1.375)),
        "cpo": softplus(-0.1 * (w - bad)) - w / 2,
        "dpop": softplus(-0.1 * (delta - 50 * max(0, w_ref - w))),
        "orpo": -w / 2 + 0.1 * softplus(-(odds(w / 2) - odds(bad))),
    }
    for name, one in expected.items():
        assert value(build(name), policy, reference) == pytest.approx(one, rel=1e-9, abs=1e-9)


def odds(mean: float) -> float:
    return mean - math.log(-math.expm1(mean))


def test_the_odds_of_a_certain_response_are_bounded_without_gradient() -> None:
    """At s̄ = 0 they are infinite, and the difference of two such not a number."""
    means = torch.tensor([0.0, CERTAIN / 2, -800.0], requires_grad=True)
    found = log_odds(means)
    (gradient,) = torch.autograd.grad(found.sum(), means)
    assert found.tolist() == pytest.approx([odds(CERTAIN), odds(CERTAIN), -800.0], rel=1e-5)
    assert gradient.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_gradient_against_finite_differences(name: str, settings: dict[str, Any]) -> None:
    responses = ranked((2, 1), (1, 3, 2))
    values = -3 * torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = scores([[-1.0, -1.0], [-2.0], [-1.0], [-1.0, -2.0, -3.0], [-1.0, -1.0]])
    term = build(name, **settings)

    def loss(token_logps: Tensor) -> Tensor:
        policy = reference.replace_tensors([token_logps])
        return term(policy, reference, responses, totals(responses)).loss

    assert torch.autograd.gradcheck(loss, (values.requires_grad_(),))


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
@pytest.mark.parametrize("rows", [[[0.0], [0.0]], [[-1e6] * 3, [0.0]], [[0.0], [-1e6] * 3]])
def test_extreme_scores_give_finite_values_and_gradients(
    name: str, settings: dict[str, Any], rows: list[list[float]]
) -> None:
    responses = ranked((len(rows[0]), len(rows[1])))
    policy = scores(rows)
    leaves = policy.replace_tensors([policy.token_logps.float()]).leaves()
    reference = policy.replace_tensors([torch.full_like(leaves.token_logps, -2.0).detach()])

    loss = build(name, **settings)(leaves, reference, responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(loss, [leaves.token_logps])

    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["ipo", "simpo", "dpop", "dpo"])
def test_equal_responses_pull_nowhere(name: str) -> None:
    """What one side gains the other loses: of shared weights nothing is left."""
    policy = scores([[-1.0, -2.0], [-1.0, -2.0]]).leaves()
    responses = ranked((2, 2))
    loss = build(name)(policy, policy.detach(), responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(loss, [policy.token_logps])
    assert (gradient[:2] + gradient[2:]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", NAMES)
def test_without_pairs_only_a_likelihood_is_left(name: str) -> None:
    policy, responses = scores([[-1.0, -3.0]]).leaves(), ranked((2,))

    loss = build(name)(policy, policy.detach(), responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(loss, [policy.token_logps])

    left = 2.0 if TERMS[name].likelihood else 0.0
    assert loss.item() == left
    assert gradient.tolist() == ([-0.5, -0.5] if left else [0.0, 0.0])


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_what_orpo_reports_of_a_part_is_that_parts_mean(reduction: str) -> None:
    """Parts are averaged for the log, so a share of the whole would shrink with their number."""
    term = build("orpo", reduction=reduction)
    rows = [[-1.0, -2.0], [-3.0], [-0.5, -0.25], [-4.0]]
    both = ranked((2, 1), (2, 1))
    whole = term(scores(rows), None, both, totals(both)).metrics
    parts = [
        term(scores(rows[at : at + 2]), None, ranked((2, 1)), totals(both)).metrics for at in (0, 2)
    ]
    for key in ("nll", "odds_ratio"):
        mean = (parts[0][key] + parts[1][key]) / 2
        torch.testing.assert_close(whole[key], mean, rtol=1e-12, atol=0)
    assert whole["nll"].item() == pytest.approx((3 + 0.75) / 4)
