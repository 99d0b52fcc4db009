"""Geodesic cost: the length of the shortest path over a graph of nearest neighbours.

Each token is joined to its k nearest neighbours with edges as long as their distance; parts of the
graph that do not hang together are joined by the shortest edge between them, part by part, until
they do. Path lengths obey the triangle inequality. Memory is V × k for the graph and V × M for
the lengths to M tokens at once; never V × V.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Elements of a block of distances or of path lengths that are held at once.
_BLOCK_ELEMENTS = 16_000_000


@dataclass(frozen=True)
class Graph:
    """Edges between points, each in both directions, sorted by their ends.

    Attributes:
        starts, ends: point ids [E].
        lengths: fp32 [E].
        size: number of points.
    """

    starts: Tensor
    ends: Tensor
    lengths: Tensor
    size: int

    def to(self, device: torch.device | str) -> Graph:
        """The graph on another device."""
        moved = (self.starts.to(device), self.ends.to(device), self.lengths.to(device))
        return Graph(*moved, self.size)

    def lengths_from(self, sources: Tensor) -> Tensor:
        """Shortest path lengths from `sources` [S] to all points, fp32 [size, S]."""
        block = max(1, _BLOCK_ELEMENTS // max(1, len(self.starts)))
        return torch.cat([self._relax(part) for part in sources.split(block)], dim=1)

    def _relax(self, sources: Tensor) -> Tensor:
        """Bellman and Ford: as many rounds as the longest shortest path has edges."""
        found = self.lengths.new_full((self.size, len(sources)), torch.inf)
        found[sources, torch.arange(len(sources), device=found.device)] = 0
        degrees = torch.bincount(self.ends, minlength=self.size)
        lengths = self.lengths.unsqueeze(1)
        while True:
            # The edges are sorted by their ends, so that each point's lie side by side.
            reached = found[self.starts] + lengths
            best = torch.segment_reduce(reached, "min", lengths=degrees, axis=0, initial=torch.inf)
            shorter = torch.minimum(found, best)
            if torch.equal(shorter, found):
                return found
            found = shorter


def neighbour_graph(points: Tensor, neighbours: int, norm: float = 2.0) -> Graph:
    """The connected graph of the nearest neighbours of points [V, D].

    Args:
        points: fp32 [V, D].
        neighbours: k, of each point.
        norm: l of ‖x − y‖_l.
    """
    size = len(points)
    count = min(neighbours + 1, size)
    block = max(1, _BLOCK_ELEMENTS // max(1, size))
    ends, lengths = [], []
    for part in points.split(block):
        nearest = torch.cdist(part, points, p=norm).topk(count, largest=False).indices
        ends.append(nearest)
        # Matrix products find the neighbours, but lose the digits of short distances.
        lengths.append(torch.linalg.vector_norm(part.unsqueeze(1) - points[nearest], norm, -1))
    starts = torch.arange(size, device=points.device).repeat_interleave(count)
    graph = _both_ways(starts, torch.cat(ends).flatten(), torch.cat(lengths).flatten(), size)
    while True:
        added = _bridges(points, graph, norm)
        if not len(added[0]):
            return graph
        starts, ends_, between = (
            torch.cat([old, new])
            for old, new in zip((graph.starts, graph.ends, graph.lengths), added, strict=True)
        )
        graph = _both_ways(starts, ends_, between, size)


def _both_ways(starts: Tensor, ends: Tensor, lengths: Tensor, size: int) -> Graph:
    kept = starts != ends
    low, high = torch.minimum(starts, ends)[kept], torch.maximum(starts, ends)[kept]
    keys, where = (low * size + high).unique(return_inverse=True)
    shortest = lengths.new_full((len(keys),), torch.inf)
    shortest = shortest.scatter_reduce(0, where, lengths[kept], "amin").float()
    low, high = keys // size, keys % size
    ends, order = torch.cat([high, low]).sort()
    return Graph(torch.cat([low, high])[order], ends, shortest.repeat(2)[order], size)


def _parts(graph: Graph) -> Tensor:
    """[size] the smallest point id of the part that each point hangs together with."""
    label = torch.arange(graph.size, device=graph.starts.device)
    while True:
        lower = label.scatter_reduce(0, graph.ends, label[graph.starts], "amin")
        lower = lower[lower]
        if torch.equal(lower, label):
            return label
        label = lower


def _bridges(points: Tensor, graph: Graph, norm: float) -> tuple[Tensor, Tensor, Tensor]:
    """The shortest edge from every part but the largest to any other part (Borůvka)."""
    label = _parts(graph)
    parts, sizes = label.unique(return_counts=True)
    small = parts[torch.arange(len(parts), device=parts.device) != sizes.argmax()]
    starts, ends, lengths = [], [], []
    for part in small.tolist():
        inside = torch.nonzero(label == part).flatten()
        outside = torch.nonzero(label != part).flatten()
        best: tuple[float, int, int] | None = None
        for rows in inside.split(max(1, _BLOCK_ELEMENTS // max(1, len(outside)))):
            distance = torch.cdist(points[rows], points[outside], p=norm)
            place = int(distance.argmin())
            row, column = divmod(place, len(outside))
            found = (float(distance[row, column]), int(rows[row]), int(outside[column]))
            best = found if best is None or found < best else best
        assert best is not None
        lengths.append(best[0])
        starts.append(best[1])
        ends.append(best[2])
    device = points.device
    return (
        torch.tensor(starts, dtype=torch.int64, device=device),
        torch.tensor(ends, dtype=torch.int64, device=device),
        torch.tensor(lengths, dtype=torch.float32, device=device),
    )


@dataclass(frozen=True)
class GraphDistance:
    """Path lengths between tokens, by their ids; tokens that may not carry mass stand nowhere.

    Attributes:
        graph: over the allowed tokens.
        place: LongTensor [V], each allowed token's point, −1 for the others.
    """

    graph: Graph
    place: Tensor

    @classmethod
    def between_neighbours(
        cls, points: Tensor, allowed: Tensor, neighbours: int, norm: float
    ) -> GraphDistance:
        """For token points [V, D] of which `allowed` [V] may carry mass."""
        ids = torch.nonzero(allowed).flatten()
        place = torch.full((len(points),), -1, device=points.device)
        place[ids] = torch.arange(len(ids), device=points.device)
        return cls(neighbour_graph(points[ids].float(), neighbours, norm), place)

    def tokens(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Lengths [n, m]; zero for tokens that stand nowhere, which carry no mass."""
        swapped = len(rows) < len(columns)
        sources, goals = (rows, columns) if swapped else (columns, rows)
        found = self.graph.lengths_from(self.place[sources].clamp_min(0))
        found = found[self.place[goals].clamp_min(0)]
        nowhere = (self.place[goals] < 0).unsqueeze(1) | (self.place[sources] < 0)
        found = found.masked_fill(nowhere, 0.0)
        return found.T if swapped else found

    def to(self, device: torch.device | str) -> GraphDistance:
        """The same on another device."""
        return replace(self, graph=self.graph.to(device), place=self.place.to(device))
