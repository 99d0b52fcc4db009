"""What has to move: the residual masses (p − q)₊ and (q − p)₊ on the tokens that carry them.

Under a metric cost common mass stays where it is, so transport of the residuals is transport of p
to q. Under a cost without the triangle inequality it is a definition: common mass is held.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Side:
    """One side of the residual.

    Attributes:
        tokens: ids of the heaviest, LongTensor [n], by falling mass.
        masses: theirs [n], all above zero.
        rest: mass on the other tokens, a scalar tensor.
        point: barycentre [D] of the other tokens; None if they have no mass or it was not asked.
    """

    tokens: Tensor
    masses: Tensor
    rest: Tensor
    point: Tensor | None = None

    def bins(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points [n, D] and masses [n] of the tokens, the rest as one bin behind them."""
        place, mass = points[self.tokens], self.masses
        if self.point is None:
            return place, mass
        return torch.cat([place, self.point[None]]), torch.cat([mass, self.rest[None]])


def residual(p: Tensor, q: Tensor, limit: int, points: Tensor | None = None) -> tuple[Side, Side]:
    """The giving side (p > q) and the receiving side (p < q).

    Args:
        p: distribution [V].
        q: distribution [V].
        limit: tokens kept on each side.
        points: [V, D]; given, the tokens beyond `limit` are summed up in one bin at their
            barycentre, so that what they travel among themselves is not seen.
    """
    difference = p.detach() - q.detach()
    return _side(difference, limit, points), _side(-difference, limit, points)


def _side(difference: Tensor, limit: int, points: Tensor | None) -> Side:
    excess = difference.clamp_min(0)
    count = min(limit, int((excess > 0).sum()))
    masses, tokens = excess.topk(count)
    others = excess.index_fill(0, tokens, 0)
    rest = others.sum()
    point = None
    if points is not None and bool(rest > 0):
        point = (others.to(points.dtype) @ points) / rest.to(points.dtype)
    return Side(tokens, masses, rest, point)


def follow(p: Tensor, value: Tensor, potential: Tensor) -> Tensor:
    """A scalar equal to `value` whose gradient in `p` [V] is `potential` [V] (envelope theorem)."""
    return value.to(p.dtype) + (potential.to(p.dtype) * (p - p.detach())).sum()
