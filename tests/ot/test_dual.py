"""Carried potentials against exact transport, and what a checkpoint has to hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plot_exp.ot.costs import Cost, build_cost
from plot_exp.ot.dual import (
    DualState,
    DualTransport,
    centred_deviation,
    feasible_cost,
    refine,
)
from plot_exp.ot.exact import exact_distance, solve


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


def residual_error(ours: torch.Tensor, exact: torch.Tensor, weight: torch.Tensor) -> float:
    """Weighted root mean square of the difference, up to a constant."""
    error = ours - exact
    error = error - weight @ error
    return float((weight @ error.square()).sqrt())


def correlation(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> float:
    weight = weight / weight.sum()
    x, y = x - weight @ x, y - weight @ y
    return float((weight @ (x * y)) / ((weight @ x**2) * (weight @ y**2)).sqrt())


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
    difference = (p - target).double()
    giving, receiving = torch.nonzero(difference > 0)[:, 0], torch.nonzero(difference < 0)[:, 0]
    exact = solve(cost.tokens(giving, receiving), difference[giving], -difference[receiving])
    ours = outcome.state.potential.double()
    assert correlation(ours[giving], exact.f, difference[giving]) > 0.9
    assert correlation(ours[receiving], -exact.g, -difference[receiving]) > 0.9
    weight = torch.cat([difference[giving], -difference[receiving]])
    weight = weight / weight.sum()
    best = torch.cat([exact.f, -exact.g])
    sign = torch.cat([torch.ones_like(exact.f), -torch.ones_like(exact.g)])
    multiple = (weight * (best - weight @ best)) @ sign * sign
    error = residual_error(torch.cat([ours[giving], ours[receiving]]), best, weight)
    assert error < 0.25 * residual_error(multiple, best, weight)
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
    assert kept.distances is not None
    assert bare.distances is None
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
    assert bool(changed[:250].all())
    # Beyond the window only the carrying tokens, at most 50 a side, are new.
    assert int(changed[250:].sum()) <= 100
    last = after
    for _ in range(2):
        last = transport.step(target_and_policy(600, 5)[1], last).state
    assert int(last.cursor) == 150


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


def test_warm_potentials_need_fewer_iterations_than_cold_ones() -> None:
    target, _ = target_and_policy(800, 0)
    cost = build_cost(embeddings("clustered", 800), target=target)
    transport, state, p = trained(cost)
    cold = DualState(torch.zeros(800), state.epsilon, state.cursor)
    assert transport.step(p, state).error < 0.2 * transport.step(p, cold).error


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


def test_refine_from_wild_potentials_stays_finite() -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(40, 30, generator=generator)
    a, b = torch.ones(40) / 40, torch.ones(30) / 30
    wild = 1000 * torch.randn(30, generator=generator)
    g, plan = refine(cost, a, b, wild, 0.01, 500)
    assert bool(torch.isfinite(g).all())
    torch.testing.assert_close(plan.sum(1), a)
    assert float((plan.sum(0) - b).abs().sum()) < 0.1
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
    g, plan = refine(cost, a / a.sum(), b / b.sum(), torch.zeros(16), 0.01, iterations)
    assert bool(torch.isfinite(g).all())
    assert bool(torch.isfinite(plan).all())
    torch.testing.assert_close(plan.sum(1), a / a.sum())


def test_centred_deviation_by_hand() -> None:
    """[[0, 1], [1, 0]] with even masses: less its means ±½ everywhere."""
    half = torch.tensor([0.5, 0.5])
    assert centred_deviation(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), half, half) == 0.5
    sums = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert centred_deviation(sums, half, half) == pytest.approx(3e-3)
