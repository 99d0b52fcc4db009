"""A form beside full transport: values, bounds and plans where an oracle can solve it."""

from __future__ import annotations

import ot
import pytest
import torch

from plot_exp.config.losses import PLOTConfig
from plot_exp.evals.faithfulness import faithfulness
from plot_exp.losses.plot import PLOT

from loss_scores import context

SIZE = 60


def built(points: torch.Tensor, **options: object):
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 9, (2, len(points)), generator=draw).tolist()
    facts = context(points, *counts, allowed=[True] * len(points), reference=[1.0] * len(points))
    return PLOT(PLOTConfig(**options), facts), facts


def oracle(plot: PLOT, points: torch.Tensor, p: torch.Tensor) -> float:
    cost = torch.cdist(points.double(), points.double())
    return float(ot.emd2(p.numpy(), plot.target.numpy(), cost.numpy()))


@pytest.mark.parametrize("transport", ["line", "sliced", "dual"])
def test_the_bounds_enclose_pots_value(transport: str) -> None:
    draw = torch.Generator().manual_seed(1)
    points = torch.randn(SIZE, 3, generator=draw)
    p = torch.rand(SIZE, generator=draw, dtype=torch.float64)
    p /= p.sum()
    plot, facts = built(points, transport=transport, scale="raw")
    found = faithfulness(plot, facts, p)
    assert found is not None
    exact = oracle(plot, points, p)
    assert found.full.lower <= exact * (1 + 1e-4)
    assert found.full.upper >= exact * (1 - 1e-4)
    assert found.full.gap < 0.05
    assert found.carried == pytest.approx(1)
    assert found.value <= exact * (1 + 1e-4)
    metrics = found.metrics()
    if transport == "dual":
        assert found.form_flows is None
        assert metrics["gradient_giving"] > 0.9
        assert metrics["gradient_receiving"] > 0.9
    else:
        assert found.plan_cost is not None
        assert found.plan_cost >= exact * (1 - 1e-4)
        assert metrics["plan_excess"] == pytest.approx(found.plan_cost / found.full.lower - 1)
        assert metrics["plan_excess"] >= 0


def test_on_one_line_the_cheap_form_is_exact_transport() -> None:
    """With embeddings on a line nothing is lost by it, in either scale."""
    points = torch.randn(SIZE, 1, generator=torch.Generator().manual_seed(2)).pow(3)
    p = torch.full((SIZE,), 1 / SIZE, dtype=torch.float64)
    for scale in ("raw", "spread"):
        plot, facts = built(points, scale=scale)
        found = faithfulness(plot, facts, p)
        assert found is not None
        assert found.value == pytest.approx(found.full.upper, rel=0.02)
        assert found.plan_cost == pytest.approx(found.value, rel=1e-4)


def test_with_light_tokens_left_out_the_plan_is_held_against_its_own_optimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a line the plan for the tokens used is their optimum, however few they are."""
    monkeypatch.setattr("plot_exp.evals.faithfulness.LIMIT", 6)
    points = torch.randn(SIZE, 1, generator=torch.Generator().manual_seed(6))
    plot, facts = built(points, scale="raw")
    found = faithfulness(plot, facts, torch.full((SIZE,), 1 / SIZE))
    assert found is not None
    assert found.carried < 0.9
    assert 0 <= found.metrics()["plan_excess"] < 0.02


def test_carried_potentials_are_left_as_they_were() -> None:
    points = torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(3))
    plot, facts = built(points, transport="dual")
    before = plot.transport.state
    assert faithfulness(plot, facts, torch.full((SIZE,), 1 / SIZE)) is not None
    assert plot.transport.state is before


def test_at_the_target_there_is_nothing_to_compare() -> None:
    plot, facts = built(torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(4)))
    assert faithfulness(plot, facts, plot.target.float()) is None


def test_rows_name_the_tokens() -> None:
    plot, facts = built(torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(5)))
    found = faithfulness(plot, facts, torch.full((SIZE,), 1 / SIZE))
    assert found is not None
    rows = found.rows([f"t{token}" for token in range(SIZE)])
    assert rows["mass"] == pytest.approx(found.mass)
    for kind in ("form", "full"):
        first = rows[kind][0]
        assert first["giver"] == f"t{first['giver_id']}"
        assert first["mass"] == max(row["mass"] for row in rows[kind])
        assert first["share"] == pytest.approx(first["mass"] / rows["mass"])
