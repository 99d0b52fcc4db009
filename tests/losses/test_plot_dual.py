"""PLOT by carried potentials: what is logged, and that a resumed run goes on as if unbroken."""

from __future__ import annotations

import copy

import pytest
import torch

from plot_exp.config.losses import PLOTConfig
from plot_exp.losses.plot import PLOT

from loss_scores import context, ranked, scores, totals

SIZE = 80


def term(**options: object) -> PLOT:
    draw = torch.Generator().manual_seed(0)
    points = torch.randn(SIZE, 6, generator=draw)
    counts = torch.randint(0, 9, (2, SIZE), generator=draw).tolist()
    facts = context(points, *counts, allowed=[True] * SIZE, reference=[1.0] * SIZE)
    return PLOT(PLOTConfig(transport="dual", **options), facts)


def batch(step: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(100 + step)
    return torch.rand(SIZE, generator=draw, dtype=torch.float64)


def value_and_gradient(plot: PLOT, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    mass = batch(step).requires_grad_()
    responses = ranked((2, 1))
    policy = scores([[-1.0, -1.0], [-1.0]], {("chosen", "batch"): mass})
    loss = plot(policy, None, responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(loss, mass)
    return loss.detach(), gradient


@pytest.mark.parametrize("options", [{}, {"cost_distance": "geodesic", "cost_neighbours": 4}])
def test_a_resumed_run_has_the_values_and_gradients_of_an_unbroken_one(options: dict) -> None:
    unbroken = term(**options)
    for step in range(3):
        value_and_gradient(unbroken, step)
    kept = copy.deepcopy(unbroken.state_dict())
    resumed = term(**options)
    resumed.load_state_dict(kept)
    for step in range(3, 6):
        ours, theirs = value_and_gradient(resumed, step), value_and_gradient(unbroken, step)
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    fresh = term(**options)
    assert not torch.equal(value_and_gradient(fresh, 5)[1], value_and_gradient(unbroken, 5)[1])


def test_the_log_holds_both_bounds() -> None:
    plot = term()
    responses = ranked((2, 1))
    mass = batch(0).requires_grad_()
    policy = scores([[-1.0, -1.0], [-1.0]], {("chosen", "batch"): mass})
    found = plot(policy, None, responses, totals(responses)).metrics
    assert 0 < found["distance"] <= found["upper"]
    assert float(found["gap"]) == pytest.approx(1 - float(found["distance"] / found["upper"]))
    assert found["gap"] < 0.05
    assert float(found["carried_giving"]) == pytest.approx(1)
    assert float(found["carried_receiving"]) == pytest.approx(1)


def test_a_geodesic_cost_wants_the_dual() -> None:
    facts = context(torch.randn(4, 2), [1, 0, 2, 0], [0, 2, 0, 0])
    with pytest.raises(ValueError, match="transport=dual"):
        PLOT(PLOTConfig(transport="sinkhorn", cost_distance="geodesic"), facts)
