"""Plans as flows: against hand arithmetic, POT's plans, and the values that they must cost."""

from __future__ import annotations

import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plot_exp.ot.bounds import bounds
from plot_exp.ot.exact import solve
from plot_exp.ot.flows import Flows, line_flows, matrix_flows, monotone_flows
from plot_exp.ot.geometry import build_transport
from plot_exp.ot.line import line_distance, line_positions


def pair(size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    p, q = torch.rand(2, size, generator=draw, dtype=torch.float64).pow(3)
    q = torch.where(torch.rand(size, generator=draw) < 0.5, 0, q)
    return p / p.sum(), q / q.sum()


def marginals(flows: Flows, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    empty = torch.zeros(size, dtype=torch.float64)
    return (
        empty.index_add(0, flows.givers, flows.masses),
        empty.index_add(0, flows.receivers, flows.masses),
    )


def test_north_west_corner_by_hand() -> None:
    """At 0, 1, 3, 10 the masses +½, −¼, +¼, −½: ¼ goes 0→1, ¼ goes 0→10 and ¼ goes 3→10."""
    line = line_positions(torch.tensor([3.0, 0.0, 10.0, 1.0]))
    flows = monotone_flows(torch.tensor([0.25, 0.5, -0.5, -0.25]), line)
    found = {
        (int(a), int(b)): (float(m), float(c))
        for a, b, m, c in zip(flows.givers, flows.receivers, flows.masses, flows.costs, strict=True)
    }
    assert found == {(1, 3): (0.25, 1.0), (1, 2): (0.25, 10.0), (0, 2): (0.25, 7.0)}
    assert flows.mass == 0.75
    assert flows.cost == 4.5
    assert flows.largest(1).masses.tolist() == [0.25]


@given(size=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_the_monotone_plan_has_the_residual_marginals_and_the_lines_value(
    size: int, seed: int
) -> None:
    p, q = pair(size, seed)
    q = q if bool(torch.isfinite(q).all()) else p
    draw = torch.Generator().manual_seed(seed + 1)
    line = line_positions(torch.randn(size, generator=draw, dtype=torch.float64))
    flows = monotone_flows(p - q, line)
    given_, received = marginals(flows, size)
    torch.testing.assert_close(given_, (p - q).clamp_min(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(received, (q - p).clamp_min(0), rtol=0, atol=1e-12)
    assert flows.cost == pytest.approx(float(line_distance(p, q, line)), rel=1e-9, abs=1e-12)
    moving = int((p != q).sum())
    assert len(flows.masses) <= max(0, moving - 1)


def test_the_monotone_plan_is_pots() -> None:
    p, q = pair(30)
    z = torch.randn(30, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    flows = monotone_flows(p - q, line_positions(z))
    plan = ot.emd_1d(
        z.numpy(), z.numpy(), (p - q).clamp_min(0).numpy(), (q - p).clamp_min(0).numpy(),
        metric="euclidean",
    )  # fmt: skip
    dense = torch.zeros(30, 30, dtype=torch.float64)
    dense[flows.givers, flows.receivers] = flows.masses
    torch.testing.assert_close(dense, torch.from_numpy(plan), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"transport": "path"}, {"transport": "sliced"}, {
    "transport": "sliced", "sliced_reduction": "max"}, {"line": "random"}])  # fmt: skip
def test_a_forms_flows_cost_its_value(options: dict[str, str]) -> None:
    p, q = pair(50)
    embedding = torch.randn(50, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    form = build_transport(embedding, directions=7, target=q, **options)
    flows = line_flows(p, q, form)
    given_, received = marginals(flows, 50)
    torch.testing.assert_close(given_, (p - q).clamp_min(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(received, (q - p).clamp_min(0), rtol=0, atol=1e-12)
    assert flows.cost == pytest.approx(float(form.distance(p, q)), rel=1e-9)


def test_bounds_enclose_the_exact_value_and_the_plan_is_feasible() -> None:
    p, q = pair(120)
    points = torch.randn(120, 5, generator=torch.Generator().manual_seed(3))
    givers, receivers = ((p - q) > 0).nonzero()[:, 0], ((q - p) > 0).nonzero()[:, 0]
    cost = torch.cdist(points[givers], points[receivers])
    a, b = (p - q)[givers].float(), (q - p)[receivers].float()
    found = bounds(cost, a, b)
    exact = float(a.sum()) * solve(cost, a, b).value / float(solve(cost, a, b).plan.sum())
    assert found.lower <= exact * (1 + 1e-5)
    assert found.upper >= exact * (1 - 1e-5)
    assert 0 <= found.gap < 0.02
    torch.testing.assert_close(found.plan.sum(1), a)
    torch.testing.assert_close(found.plan.sum(0), b)
    largest = matrix_flows(found.plan, cost, givers, receivers, 5)
    assert float(largest.masses[0]) == float(found.plan.max())
    row, column = divmod(int(found.plan.argmax()), len(receivers))
    assert (int(largest.givers[0]), int(largest.receivers[0])) == (
        int(givers[row]), int(receivers[column])
    )  # fmt: skip
    assert float(largest.costs[0]) == float(cost[row, column])


def test_at_the_target_nothing_flows() -> None:
    p, _ = pair(10)
    flows = monotone_flows(p - p, line_positions(torch.arange(10.0)))
    assert len(flows.masses) == 0
    assert flows.cost == 0
