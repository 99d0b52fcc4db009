"""Carried potentials against exact transport, and what a checkpoint has to hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plot_exp.ot.agreement import agreement
from plot_exp.ot.costs import Cost, build_cost
from plot_exp.ot.dual import DualState, DualTransport
from plot_exp.ot.exact import exact_distance, solve
from plot_exp.ot.residual import residual
from plot_exp.ot.scaling import centred_deviation, feasible_cost, feasible_plan, refine


def target_and_policy(size: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A sparse target, and a policy that drifts towards it with fresh noise in each batch."""
    generator = torch.Generator().manual_seed(0)
    base = -1.1 * torch.log(torch.arange(size) + 3.0)
    base += 0.8 * torch.randn(size, generator=generator)
    target = (base.softmax(0) * torch.randn(size, generator=generator)).clamp_min(0)
    target /= target.sum()
    noise = torch.randn(size, generator=torch.Generator().manual_seed(100 + step))
    policy = (base + 0.1 * noise).softmax(0)
    return target, (1 - 0.02 * step) * policy + 0.02 * step * target


def embeddings(kind: str, size: int, dimension: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if kind == "gaussian":
        return torch.randn(size, dimension, generator=generator)
    centres = torch.randn(20, dimension, generator=generator)
    own = torch.randint(20, (size,), generator=generator)
    return centres[own] + 0.3 * torch.randn(size, dimension, generator=generator)


def trained(
    cost: Cost, steps: int = 8, size: int = 800
) -> tuple[DualTransport, DualState, torch.Tensor]:
    """A transport after some steps, and the next p."""
    transport = DualTransport(cost, target_and_policy(size, 0)[0])
    state = DualState.start(size)
    for step in range(steps):
        state = transport.step(target_and_policy(size, step)[1], state).state
    return transport, state, target_and_policy(size, steps)[1]


@pytest.mark.parametrize("kind", ["gaussian", "clustered"])
@pytest.mark.parametrize(("shape", "parameter"), [("linear", 1.0), ("power", 4.0)])
def test_carried_potentials_follow_exact_transport(kind: str, shape: str, parameter: float) -> None:
    """Weighted by residual mass: 0.9 within each side, and a quarter of the error of the sign."""
    target, _ = target_and_policy(800, 0)
    cost = build_cost(embeddings(kind, 800), shape=shape, parameter=parameter, target=target)
    transport, state, p = trained(cost)
    outcome = transport.step(p, state, with_upper=True)
    giving, receiving = residual(p.double(), target.double(), 800)
    exact = solve(
        cost.tokens(giving.tokens, receiving.tokens).double(), giving.masses, receiving.masses
    )
    found = agreement(outcome.state.potential, giving, receiving, exact.f, exact.g)
    assert found.giving > 0.9
    assert found.receiving > 0.9
    assert found.error < 0.25
    assert outcome.upper is not None
    assert outcome.distance.item() <= exact.value * (1 + 1e-5)
    assert outcome.upper.item() >= exact.value * (1 - 1e-5)
    assert outcome.distance.item() > 0.95 * exact.value


def test_the_gradient_is_the_potential_and_feasible() -> None:
    """On a metric cost the potential is 1-Lipschitz where it is fresh, so the value is a bound."""
    target, _ = target_and_policy(300, 0)
    cost = build_cost(embeddings("gaussian", 300), target=target)
    transport, state, p = trained(cost, size=300)
    leaf = p.clone().requires_grad_()
    outcome = transport.step(leaf, state)
    (gradient,) = torch.autograd.grad(outcome.distance, leaf)
    assert torch.equal(gradient, outcome.state.potential)
    matrix = cost.tokens(torch.arange(300), torch.arange(300))
    slack = matrix - (gradient[:, None] - gradient[None, :])
    receives = (p < target).nonzero()[:, 0]
    assert float(slack[:, receives].min()) > -1e-3
    value = outcome.distance.item()
    assert value == pytest.approx(float(gradient @ (p - target)), rel=1e-4)
    assert value <= float(exact_distance(p.double(), target.double(), cost)) * (1 + 1e-5)


def test_kept_distances_change_nothing() -> None:
    target, p = target_and_policy(600, 1)
    cost = build_cost(embeddings("clustered", 600), target=target)
    kept = DualTransport(cost, target)
    bare = DualTransport(cost, target, memory=0)
    assert kept.costs.kept is not None
    assert bare.costs.kept is None
    one, two = (form.step(p, DualState.start(600)) for form in (kept, bare))
    torch.testing.assert_close(one.distance, two.distance, rtol=1e-4, atol=0)
    torch.testing.assert_close(one.state.potential, two.state.potential, rtol=1e-2, atol=1e-2)


def test_light_tokens_are_refreshed_in_turn() -> None:
    target, _ = target_and_policy(600, 0)
    cost = build_cost(embeddings("gaussian", 600), target=target)
    transport = DualTransport(cost, target, limit=50, refresh=250)
    state = transport.step(target_and_policy(600, 0)[1], DualState.start(600)).state
    assert int(state.cursor) == 0
    after = transport.step(target_and_policy(600, 5)[1], state).state
    changed = after.potential != state.potential
    assert bool(changed[:125].all())
    # The target's tokens and the heaviest of p are always brought up to date.
    heaviest = target_and_policy(600, 5)[1].topk(125).indices
    assert bool(changed[transport.costs.columns].all())
    assert bool(changed[heaviest].all())
    assert int(changed.sum()) <= 125 + 100 + 50 + 125
    last = after
    for _ in range(4):
        last = transport.step(target_and_policy(600, 5)[1], last).state
    assert int(last.cursor) == 25


def test_a_checkpoint_holds_all_that_matters(tmp_path: Path) -> None:
    target, _ = target_and_policy(400, 0)
    cost = build_cost(embeddings("gaussian", 400), target=target)
    transport, state, p = trained(cost, steps=3, size=400)
    save_file(state.state_dict(), tmp_path / "state.safetensors")
    read = DualState(**load_file(tmp_path / "state.safetensors"))
    again = DualTransport(cost, target)
    one, two = transport.step(p, state), again.step(p, read)
    assert torch.equal(one.state.potential, two.state.potential)
    assert torch.equal(one.distance, two.distance)


def test_warm_potentials_need_fewer_scalings_than_cold_ones() -> None:
    target, _ = target_and_policy(800, 0)
    cost = build_cost(embeddings("clustered", 800), target=target)
    transport, state, p = trained(cost)
    cold = DualState(torch.zeros(800), state.epsilon, state.cursor)
    warm, again = transport.step(p, state), transport.step(p, cold)
    assert 2 * warm.scalings <= again.scalings
    assert warm.error < transport.tolerance


def test_at_rest_nothing_moves() -> None:
    target, p = target_and_policy(100, 0)
    transport = DualTransport(build_cost(embeddings("gaussian", 100), target=target), target)
    state = transport.step(p, DualState.start(100)).state
    leaf = target.clone().requires_grad_()
    outcome = transport.step(leaf, state, with_upper=True)
    assert outcome.distance.item() == 0
    assert outcome.state is state
    outcome.distance.backward()
    assert leaf.grad is not None
    assert not bool(leaf.grad.any())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_vocabularies(size: int) -> None:
    """Two tokens at distance d: what moves is |p − q| once over the distance."""
    embedding = torch.arange(size, dtype=torch.float32).unsqueeze(1) * 2
    target = torch.zeros(size)
    target[-1] = 1
    p = torch.full((size,), 1 / size)
    transport = DualTransport(build_cost(embedding, scale="raw"), target)
    outcome = transport.step(p, DualState.start(size), with_upper=True)
    expected = {1: 0.0, 2: 1.0, 3: 2.0}[size]
    assert outcome.distance.item() == pytest.approx(expected, abs=1e-5)
    assert outcome.upper is not None
    assert outcome.upper.item() == pytest.approx(expected, abs=1e-5)


def test_tokens_that_share_a_point_do_not_break_it() -> None:
    embedding = embeddings("gaussian", 200)
    embedding[50:150] = embedding[0]
    target, p = target_and_policy(200, 0)
    transport = DualTransport(build_cost(embedding, target=target), target)
    outcome = transport.step(p, DualState.start(200), with_upper=True)
    exact = float(exact_distance(p.double(), target.double(), transport.cost))
    assert outcome.upper is not None
    assert outcome.distance.item() <= exact * 1.01
    assert 0.95 * exact < outcome.distance.item()
    assert exact * 0.99 <= outcome.upper.item() < 1.05 * exact


def test_tokens_at_one_point_cost_nothing() -> None:
    target, p = target_and_policy(50, 0)
    transport = DualTransport(build_cost(torch.ones(50, 4), scale="raw", target=target), target)
    state = transport.step(p, DualState.start(50)).state
    outcome = transport.step(p, state, with_upper=True)
    assert outcome.upper is not None
    assert outcome.distance.item() == pytest.approx(0, abs=1e-30)
    assert outcome.upper.item() == 0
    assert bool(torch.isfinite(outcome.state.potential).all())


def test_the_entropy_is_set_where_the_sides_first_have_several_tokens() -> None:
    """One token a side says nothing of ε, and ε follows too slowly to make up for a wrong one."""
    target, p = target_and_policy(800, 0)
    clustered = build_cost(embeddings("clustered", 800), target=target)
    transport = DualTransport(clustered, target)
    near = target.clone()
    near[target.argmax()] -= 0.01
    near[(target == 0).nonzero()[0]] += 0.01
    state = transport.step(near, DualState.start(800)).state
    outcome = transport.step(p, state, with_upper=True)
    assert outcome.upper is not None
    assert outcome.distance.item() > 0.9 * outcome.upper.item()


def test_refine_from_wild_potentials_stays_finite() -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(40, 30, generator=generator)
    a, b = torch.ones(40) / 40, torch.ones(30) / 30
    wild = 1000 * torch.randn(30, generator=generator)
    plan = refine(cost, a, b, wild, 0.01, 500)
    assert bool(torch.isfinite(plan.g).all())
    torch.testing.assert_close(plan.matrix().sum(1), a)
    assert float((plan.matrix().sum(0) - b).abs().sum()) == pytest.approx(plan.error, abs=1e-5)
    assert plan.error < 0.1
    rounded = feasible_plan(plan, a, b)
    torch.testing.assert_close(rounded.sum(1), a)
    torch.testing.assert_close(rounded.sum(0), b)
    assert float((rounded * cost).sum()) == pytest.approx(
        float(feasible_cost(cost, plan, a, b)), rel=1e-5
    )
    best = solve(cost, a, b).value
    assert best <= float(feasible_cost(cost, plan, a, b)) * (1 + 1e-5)


@pytest.mark.parametrize("iterations", [20, 50, 200])
def test_islands_that_hardly_reach_each_other_stay_finite(iterations: int) -> None:
    """Two clusters so far apart that the kernel between them is zero, with unequal masses.

    Each scaling moves the potentials of an island by a fixed factor: unbounded, it overflows.
    """
    near = torch.rand(8, 8, generator=torch.Generator().manual_seed(4)) * 0.1
    cost = torch.full((16, 16), 1000.0)
    cost[:8, :8] = near
    cost[8:, 8:] = near
    a = torch.cat([torch.full((8,), 1e-6), torch.full((8,), 1.0)])
    b = torch.cat([torch.full((8,), 1.0), torch.full((8,), 1e-6)])
    plan = refine(cost, a / a.sum(), b / b.sum(), torch.zeros(16), 0.01, iterations)
    assert bool(torch.isfinite(plan.g).all())
    assert bool(torch.isfinite(plan.matrix()).all())
    torch.testing.assert_close(plan.matrix().sum(1), a / a.sum())


def test_centred_deviation_by_hand() -> None:
    """[[0, 1], [1, 0]] with even masses: less its means ±½ everywhere."""
    half = torch.tensor([0.5, 0.5])
    assert centred_deviation(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), half, half) == 0.5
    sums = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert centred_deviation(sums, half, half) == pytest.approx(3e-3)


@pytest.mark.parametrize("parameter", [1.0, 6.0])
def test_a_heavy_tailed_cost_keeps_a_small_gap(parameter: float) -> None:
    """A few tokens far from all others: ε must not be measured on their distances."""
    embedding = embeddings("gaussian", 500, 8)
    embedding[::50] *= 20
    target, _ = target_and_policy(500, 0)
    cost = build_cost(embedding, shape="power", parameter=parameter, target=target)
    transport, state, p = trained(cost, size=500)
    outcome = transport.step(p, state, with_upper=True)
    assert outcome.upper is not None
    assert 0.6 * outcome.upper.item() < outcome.distance.item() <= outcome.upper.item()


@pytest.mark.parametrize("kind", ["gaussian", "clustered"])
def test_a_jump_of_p_is_followed(kind: str) -> None:
    """A large learning rate: p is replaced by one with other favourites from a step to the next."""
    target, _ = target_and_policy(800, 0)
    cost = build_cost(embeddings(kind, 800), target=target)
    transport, state, _ = trained(cost)
    generator = torch.Generator().manual_seed(9)
    p = (target_and_policy(800, 0)[1].log() + torch.randn(800, generator=generator)).softmax(0)
    potential = transport.step(p, state).state.potential
    giving, receiving = residual(p.double(), target.double(), 800)
    exact = solve(
        cost.tokens(giving.tokens, receiving.tokens).double(), giving.masses, receiving.masses
    )
    found = agreement(potential, giving, receiving, exact.f, exact.g)
    stale = agreement(state.potential, giving, receiving, exact.f, exact.g)
    assert min(found.giving, found.receiving) > 0.9
    assert found.error < 0.25 < stale.error


def test_a_plan_moves_exactly_the_residual_masses() -> None:
    target, _ = target_and_policy(400, 0)
    cost = build_cost(embeddings("clustered", 400), target=target)
    transport, state, p = trained(cost, steps=3, size=400)
    plan = transport.plan(p, state)
    assert plan is not None
    assert bool((plan.matrix >= 0).all())
    difference = p - target
    torch.testing.assert_close(plan.matrix.sum(1), difference[plan.giving.tokens])
    torch.testing.assert_close(plan.matrix.sum(0), -difference[plan.receiving.tokens])
    exact = float(exact_distance(p.double(), target.double(), cost))
    assert exact * (1 - 1e-5) <= float((plan.matrix * plan.cost).sum()) < 1.05 * exact
    assert transport.plan(target, state) is None


def test_light_receivers_stand_at_the_receiving_end() -> None:
    """A target that lies on all tokens, with more receivers than are used and than are kept.

    Gaussian points are all far apart: what receives stands by nearly twice a distance below what
    gives, so that one end taken for the other shows.
    """
    target, _ = target_and_policy(900, 0)
    p = target_and_policy(900, 2)[1]
    target = 0.5 * target + 0.5 * target_and_policy(900, 9)[1]
    cost = build_cost(embeddings("gaussian", 900), scale="raw")
    transport = DualTransport(cost, target, limit=150)
    assert len(transport.costs.columns) == 300
    first = transport.step(p, DualState.start(900))
    giving, receiving = residual(p.double(), target.double(), 900)
    assert len(receiving.tokens) > 300
    exact = solve(
        cost.tokens(giving.tokens, receiving.tokens).double(), giving.masses, receiving.masses
    )
    found = agreement(first.state.potential, giving, receiving, exact.f, exact.g)
    assert found.giving > 0.9
    assert found.receiving > 0.9
