"""Wasserstein-1 along a path that visits the tokens in a fixed order.

The distance between two tokens is the length of the path between them, Σ ‖e_(k+1) − e_(k)‖, never
below ‖e_i − e_j‖ by the triangle inequality: an upper bound of exact transport. Unlike the other
forms it depends on the numbering of the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plot_exp.ot.line import Line


def path_line(
    embedding: Tensor,
    order: Tensor | None = None,
    allowed: Tensor | None = None,
    norm: float = 2.0,
    block: int = 16_384,
) -> Line:
    """The path as a line, for `line_distance`.

    Args:
        embedding: [V, D].
        order: LongTensor of token ids in the order of the path; by default 0 … V − 1.
        allowed: BoolTensor [V]; the path passes by the tokens that may not carry mass.
        norm: l of ‖e_i − e_j‖_l.
        block: rows for which differences are held at once.

    Raises:
        ValueError: an embedding on the path is not finite.
    """
    order = torch.arange(len(embedding), device=embedding.device) if order is None else order
    if allowed is not None:
        order = order[allowed.to(order.device)[order]]
    steps = []
    for start in range(0, max(0, len(order) - 1), block):
        points = embedding.detach()[order[start : start + block + 1]].double()
        steps.append(torch.linalg.vector_norm(points.diff(dim=0), ord=norm, dim=-1))
    gaps = torch.cat(steps) if steps else embedding.new_zeros(0, dtype=torch.float64)
    if not bool(torch.isfinite(gaps).all()):
        raise ValueError("the embeddings along a path must be finite numbers")
    return Line(order=order, gaps=gaps)
