"""Exact and entropic transport in the full cost against POT, and their gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plot_exp.errors import UserError
from plot_exp.ot.costs import Cost, build_cost
from plot_exp.ot.exact import exact_distance, solve
from plot_exp.ot.geometry import build_transport
from plot_exp.ot.residual import residual
from plot_exp.ot.sinkhorn import sinkhorn_distance, sinkhorn_potentials


def problem(
    seed: int, size: int = 12, zeros: bool = False, ties: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings, logits of p, and q; with ties embeddings repeat, with zeros q's masses vanish."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(size, 3, generator=generator, dtype=torch.float64)
    if ties:
        embedding = embedding[torch.randint(size, (size,), generator=generator)]
    logits = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    q = torch.randn(size, generator=generator, dtype=torch.float64).softmax(0)
    if zeros:
        q = torch.where(torch.rand(size, generator=generator) < 0.5, 0, q)
        q[0] += 0.1
    return embedding, logits, q / q.sum()


def raw(embedding: torch.Tensor) -> Cost:
    return build_cost(embedding, scale="raw")


def slope(function: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> None:
    """The gradient in the logits against central differences; it sums to zero."""
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf.softmax(-1)), leaf)
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-12)
    step = 1e-5
    for token in range(len(logits)):
        move = step * torch.eye(len(logits), dtype=torch.float64)[token]
        up, down = function((logits + move).softmax(-1)), function((logits - move).softmax(-1))
        assert float(gradient[token]) == pytest.approx(float(up - down) / (2 * step), abs=2e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 25), st.booleans(), st.booleans())
def test_exact_equals_the_linear_program_on_whole_masses(
    seed: int, size: int, zeros: bool, ties: bool
) -> None:
    embedding, logits, q = problem(seed, size, zeros, ties)
    p = logits.softmax(0)
    cost = raw(embedding)
    matrix = cost.tokens(torch.arange(size), torch.arange(size))
    expected = float(pot.emd2(p.numpy(), q.numpy(), matrix.numpy()))
    value = float(exact_distance(p, q, cost))
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(exact_distance(q, p, cost)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    line = build_transport(embedding, line="random", scale="raw")
    path = build_transport(embedding, transport="path", scale="raw")
    assert float(line.distance(p, q)) <= value + 1e-9
    assert float(path.distance(p, q)) >= value - 1e-9


def test_gradient_of_exact_transport() -> None:
    embedding, logits, q = problem(1)
    cost = raw(embedding)
    slope(lambda p: exact_distance(p, q, cost), logits)
    p = torch.stack([logits.softmax(0), q])
    assert exact_distance(p, q, cost).shape == (2,)
    assert float(exact_distance(p, q, cost)[1]) == 0


def test_the_extended_potential_is_feasible_for_every_token() -> None:
    """Tokens with neither mass get the c-transform: the potential is 1-Lipschitz in the cost."""
    embedding, logits, q = problem(2, size=30)
    p = torch.where(torch.arange(30) < 10, logits, -torch.inf).softmax(0).requires_grad_()
    q = torch.where(torch.arange(30) > 20, q, 0)
    q = q / q.sum()
    cost = raw(embedding)
    value = exact_distance(p, q, cost)
    (potential,) = torch.autograd.grad(value, p)
    matrix = cost.tokens(torch.arange(30), torch.arange(30))
    slack = matrix - (potential[:, None] - potential[None, :])
    assert float(slack.min()) >= -1e-9
    assert (potential @ (p - q)).item() == pytest.approx(value.item(), rel=1e-9)


def test_beyond_the_limit_tokens_are_one_bin() -> None:
    embedding, logits, q = problem(3, size=40)
    p = logits.softmax(0)
    cost = raw(embedding)
    giving, receiving = residual(p, q, 5, cost.points)
    assert len(giving.tokens) == 5
    both = giving.masses.sum() + giving.rest
    torch.testing.assert_close(both, (p - q).clamp_min(0).sum())
    others = (p - q).clamp_min(0).index_fill(0, giving.tokens, 0)
    torch.testing.assert_close(giving.point, others @ cost.points / others.sum())
    whole = float(exact_distance(p, q, cost))
    # A barycentre stands for its tokens: never further away than they are (Jensen).
    assert 0.5 * whole < float(exact_distance(p, q, cost, limit=10)) <= whole + 1e-12
    assert float(exact_distance(p, q, cost, limit=40)) == pytest.approx(whole, rel=1e-12)
    assert len(receiving.tokens) == 5


def test_without_pot_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(UserError, match="needs the package POT"):
        solve(torch.ones(1, 1), torch.ones(1), torch.ones(1))


def test_entropic_plan_equals_pot() -> None:
    embedding, logits, q = problem(4)
    p = logits.softmax(0)
    cost = torch.cdist(embedding, embedding)
    expected = torch.from_numpy(
        pot.sinkhorn(
            p.numpy(),
            q.numpy(),
            cost.numpy(),
            reg=0.1,
            method="sinkhorn_log",
            numItermax=100_000,
            stopThr=1e-14,
        )
    )
    f, g = sinkhorn_potentials(cost, p, q, 0.1, 100_000, 1e-13)
    plan = p[:, None] * q * ((f[:, None] + g - cost) / 0.1).exp()
    torch.testing.assert_close(plan, expected, rtol=1e-8, atol=1e-12)
    primal = (plan * cost).sum() + 0.1 * (plan * (plan / (p[:, None] * q)).log()).sum()
    torch.testing.assert_close(p @ f + q @ g, primal, rtol=1e-10, atol=0)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("limit", [4, 64])
def test_gradient_of_entropic_transport(debiased: bool, limit: int) -> None:
    """With a bin for the rest the carried tokens' gradient is exact and the others' is not."""
    embedding, logits, q = problem(5)
    cost = raw(embedding)

    def distance(p: torch.Tensor) -> torch.Tensor:
        return sinkhorn_distance(
            p, q, cost, epsilon=0.2, limit=limit, debiased=debiased, tolerance=1e-13
        )

    if limit == 64:
        slope(distance, logits)
        return
    p = logits.softmax(0).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(p), p)
    giving, _ = residual(p, q, limit)
    i, j = giving.tokens[:2]
    move = torch.zeros_like(q)
    move[i], move[j] = 1e-6, -1e-6
    with torch.no_grad():
        change = (distance(p + move) - distance(p - move)) / 2e-6
    assert float(gradient[i] - gradient[j]) == pytest.approx(float(change), abs=1e-5)


def test_small_entropy_approaches_exact_transport() -> None:
    """Exact ≤ OT_ε ≤ exact + ε·KL(plan ‖ a ⊗ b), and that KL is at most log of the smaller side."""
    embedding, logits, q = problem(6, size=40)
    p, cost = logits.softmax(0), raw(embedding)
    exact = float(exact_distance(p, q, cost))
    most = math.log(min(int((p > q).sum()), int((p < q).sum())))
    excess = []
    for epsilon in (1.0, 0.1, 0.01, 0.003):
        excess.append(float(sinkhorn_distance(p, q, cost, epsilon=epsilon)) - exact)
        assert 0 < excess[-1] <= epsilon * most
    assert excess == sorted(excess, reverse=True)
    assert excess[-1] < 0.01 * exact


def test_entropic_value_at_rest_and_in_batches() -> None:
    embedding, logits, q = problem(7)
    cost = raw(embedding)
    p = torch.stack([logits.softmax(0), q]).reshape(2, 1, -1)
    for debiased in (False, True):
        values = sinkhorn_distance(p, q, cost, debiased=debiased)
        assert values.shape == (2, 1)
        assert float(values[0, 0]) > 0
        assert float(values[1, 0]) == 0


def test_one_token() -> None:
    cost = raw(torch.ones(1, 2))
    one = torch.ones(1, requires_grad=True)
    for value in (exact_distance(one, torch.ones(1), cost), sinkhorn_distance(one, one, cost)):
        assert value.item() == 0
        value.backward()
