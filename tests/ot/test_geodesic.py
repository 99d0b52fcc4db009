"""Shortest paths over neighbours against SciPy, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from plot_exp.ot.costs import build_cost
from plot_exp.ot.dual import DualState, DualTransport
from plot_exp.ot.exact import solve
from plot_exp.ot.geodesic import Graph, neighbour_graph


def sparse(graph: Graph) -> coo_matrix:
    places = (graph.starts.numpy(), graph.ends.numpy())
    return coo_matrix((graph.lengths.numpy(), places), shape=(graph.size, graph.size)).tocsr()


def test_along_a_horseshoe_the_path_follows_the_curve() -> None:
    """Points at 0, 1, 2 on a bent wire: the ends are near each other but far along it."""
    wire = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.2]])
    graph = neighbour_graph(wire, 1)
    found = graph.lengths_from(torch.tensor([0]))[:, 0]
    last = float(torch.linalg.vector_norm(wire[3] - wire[2]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 2.0, 2.0 + last]))


@pytest.mark.parametrize("clusters", [1, 6])
def test_against_scipy(clusters: int) -> None:
    draw = torch.Generator().manual_seed(0)
    centres = 50 * torch.randn(clusters, 3, generator=draw)
    points = centres[torch.arange(300) % clusters] + torch.randn(300, 3, generator=draw)
    graph = neighbour_graph(points, 4)
    oracle = sparse(graph)
    assert connected_components(oracle)[0] == 1
    sources = torch.tensor([0, 17, 250])
    found = graph.lengths_from(sources).T.numpy()
    np.testing.assert_allclose(found, dijkstra(oracle, indices=sources.numpy()), rtol=1e-5)
    straight = torch.cdist(points[sources].double(), points.double()).numpy()
    assert (found >= straight - 1e-4).all()


def test_parts_are_joined_by_their_shortest_edge() -> None:
    """Two pairs and a single point on a line; with one neighbour each only the pairs hold."""
    points = torch.tensor([[0.0], [1.0], [10.0], [11.5], [-30.0]])
    graph = neighbour_graph(points, 1)
    found = graph.lengths_from(torch.tensor([4]))[:, 0]
    assert found.tolist() == [30.0, 31.0, 40.0, 41.5, 0.0]


def test_as_a_cost_it_is_a_metric_that_the_dual_solves() -> None:
    draw = torch.Generator().manual_seed(1)
    angle = 3 * torch.rand(200, generator=draw)
    roll = torch.stack([angle * angle.cos(), angle * angle.sin(), torch.rand(200, generator=draw)])
    allowed = torch.ones(200, dtype=torch.bool)
    allowed[:3] = False
    p, q = torch.rand(2, 200, generator=draw).mul(allowed)
    p, q = p / p.sum(), q / q.sum()
    cost = build_cost(roll.T, distance="geodesic", neighbours=6, allowed=allowed, target=q)
    ids = torch.arange(3, 200)
    matrix = cost.tokens(ids, ids)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-4, atol=1e-5)
    through = (matrix.unsqueeze(2) + matrix.unsqueeze(0)).amin(1)
    assert bool((matrix <= through + 1e-4).all())
    step = DualTransport(cost, q).step(p, DualState.start(200), with_upper=True)
    givers, receivers = (p > q).nonzero()[:, 0], (p < q).nonzero()[:, 0]
    exact = solve(cost.tokens(givers, receivers), (p - q)[givers], (q - p)[receivers]).value
    assert step.upper is not None
    assert step.distance.item() <= exact * (1 + 1e-4) <= step.upper.item() * (1 + 2e-4)
    assert step.distance.item() > 0.9 * exact


def test_an_unknown_distance_is_named() -> None:
    with pytest.raises(ValueError, match="geodesic"):
        build_cost(torch.zeros(3, 2), distance="crow")
