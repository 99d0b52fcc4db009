"""Sliced Wasserstein-1: the line form over many directions, their mean or their maximum.

With unit directions each projection shortens distances, so every slice, their mean and their
maximum are lower bounds of exact transport in the Euclidean cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plot_exp.ot.line import Line, line_positions


def random_directions(dimension: int, count: int, seed: int) -> Tensor:
    """Unit vectors uniform on the sphere, the same on every machine: float64 [count, D] on CPU."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)


def sliced_lines(
    embedding: Tensor, directions: Tensor, allowed: Tensor | None = None, block: int = 16
) -> tuple[Line, ...]:
    """One line for each direction, for `lines_distance`.

    Args:
        embedding: [V, D].
        directions: unit vectors [L, D].
        allowed: BoolTensor [V] of tokens that may carry mass; all of them if None.
        block: directions projected at once, [V, block] in float64.

    Returns:
        L lines; together they hold 16 bytes for each token and direction.
    """
    lines: list[Line] = []
    for start in range(0, len(directions), block):
        z = project(embedding, directions[start : start + block])
        lines += [line_positions(column, allowed) for column in z.T]
    return tuple(lines)


def project(embedding: Tensor, directions: Tensor, block: int = 16_384) -> Tensor:
    """⟨e_v, w_l⟩ in float64, [V, L], without a float64 copy of the embeddings [V, D]."""
    weights = directions.to(embedding.device, torch.float64).T
    rows = embedding.detach().split(block)
    return torch.cat([part.double() @ weights for part in rows])
