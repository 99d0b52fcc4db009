"""Costs against SciPy's distances and hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from plot_exp.ot import costs
from plot_exp.ot.costs import SHAPES, Shape, build_cost, cost_spread


def points(seed: int = 0, size: int = 12, dimension: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dimension, generator=generator, dtype=torch.float64) + 3


def everything(cost: costs.Cost) -> torch.Tensor:
    ids = torch.arange(len(cost.points))
    return cost.tokens(ids, ids)


@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_raw_is_the_distance(norm: float) -> None:
    embedding = points()
    expected = cdist(embedding, embedding, "minkowski", p=norm)
    ours = everything(build_cost(embedding, scale="raw", norm=norm))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-14)
    single = everything(build_cost(embedding.float(), scale="raw", norm=norm))
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-4, atol=3e-3)


def test_a_common_offset_does_not_cost_precision() -> None:
    """Embeddings often share a large mean; fp32 distances are taken after it is removed."""
    embedding = points() + 1000
    expected = cdist(embedding, embedding)
    ours = everything(build_cost(embedding.float(), scale="raw"))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=2e-4, atol=4e-3)


def test_shapes_by_hand() -> None:
    """Tokens at 0, 1 and 3 on a line; the target has half its mass on each of the last two.

    The typical distance is √(½·½·2²) = 1, the standard deviation of the target.
    """
    embedding = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    target = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    squared = build_cost(embedding, shape="power", parameter=2.0, scale="raw", target=target)
    assert everything(squared)[0].tolist() == pytest.approx([0, 1, 9])
    bent = build_cost(embedding, shape="saturating", parameter=0.5, scale="raw", target=target)
    assert bent.typical == pytest.approx(1)
    assert everything(bent)[0].tolist() == pytest.approx([0, 1 - np.exp(-2), 1 - np.exp(-6)])
    assert not squared.metric
    assert bent.metric
    assert build_cost(embedding, shape="power", parameter=0.5, scale="raw").metric


def test_spread_makes_scale_irrelevant_and_is_the_deviation_on_a_line() -> None:
    embedding, target = points(1), torch.rand(12, dtype=torch.float64).softmax(0)
    for shape, parameter in (("linear", 1.0), ("power", 3.0), ("saturating", 0.7)):
        small = build_cost(embedding, shape=shape, parameter=parameter, target=target)
        large = build_cost(50 * embedding, shape=shape, parameter=parameter, target=target)
        assert cost_spread(small, target) == pytest.approx(1)
        torch.testing.assert_close(everything(small), everything(large))
    line = build_cost(embedding[:, :1], scale="raw")
    deviation = np.sqrt(np.cov(embedding[:, 0].numpy(), aweights=target.numpy(), ddof=0))
    assert cost_spread(line, target) == pytest.approx(deviation)


def test_transforms() -> None:
    embedding, mass = points(2), torch.rand(12, dtype=torch.float64).softmax(0)
    raw = everything(build_cost(embedding, scale="raw"))
    shifted = build_cost(embedding, transforms=["centred"], scale="raw", token_mass=mass)
    torch.testing.assert_close(everything(shifted), raw)
    both = build_cost(embedding, transforms=["centred", "normalised"], scale="raw", token_mass=mass)
    centred = embedding - mass @ embedding
    directions = centred / centred.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(everything(both), cdist(directions, directions), atol=1e-12)
    white = build_cost(embedding, transforms=["whitened"], scale="raw", token_mass=3 * mass)
    inverse = np.linalg.inv(np.cov(embedding.T, aweights=mass, ddof=0))
    expected = cdist(embedding, embedding, "mahalanobis", VI=inverse)
    np.testing.assert_allclose(everything(white), expected, rtol=1e-9, atol=1e-9)


def test_excluded_tokens_leave_no_trace() -> None:
    embedding = points(3)
    padded = torch.cat([embedding, torch.full((2, 4), float("nan"), dtype=torch.float64)])
    allowed = torch.arange(14) < 12
    for transforms in ([], ["normalised"], ["whitened"]):
        whole = everything(build_cost(embedding, transforms=transforms, scale="raw"))
        part = build_cost(padded, transforms=transforms, scale="raw", allowed=allowed)
        torch.testing.assert_close(everything(part)[:12, :12], whole)
        assert bool(torch.isfinite(part.points).all())


def test_a_researcher_adds_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(lambda d, s, typical: d.clamp_max(s), lambda _: True)
    monkeypatch.setitem(SHAPES, "capped", shape)
    cost = build_cost(points(4), shape="capped", parameter=1.5, scale="raw")
    assert float(everything(cost).max()) == 1.5


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="linear, power, saturating"):
        build_cost(points(), shape="cubic", scale="raw")
    with pytest.raises(ValueError, match="centred, normalised, whitened"):
        build_cost(points(), transforms=["centered"], scale="raw")
    with pytest.raises(ValueError, match="need the target"):
        build_cost(points())
    with pytest.raises(ValueError, match="no spread"):
        build_cost(points(), target=torch.eye(12)[0])
