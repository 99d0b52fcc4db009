"""The cost of moving mass from one token to another: C_ij = shape(‖φ(e_i) − φ(e_j)‖_l).

φ is a chain of `TRANSFORMS` of the embeddings, a distance from `DISTANCES` may take the place of
the straight one, and the shape bends it; a new one of each is a function and a line in its table.
Raw Euclidean distances in high dimension are so alike that transport is close to total variation; a
transform or a shape that sharpens them is what can make embeddings matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from plot_exp.ot.geodesic import GraphDistance
from plot_exp.ot.geometry import normalised

# Tokens that the scale of a cost is measured on: the heaviest of the target.
_SCALE_TOKENS = 2_048


@dataclass(frozen=True)
class Shape:
    """A function of the distance, with one parameter.

    Attributes:
        bend: of (distances, parameter, typical distance) to costs; zero at zero, increasing.
        metric: whether the triangle inequality survives for this parameter. Without it common mass
            is held in place by definition, not because that is cheapest.
    """

    bend: Callable[[Tensor, float, float], Tensor]
    metric: Callable[[float], bool]


def _centred(points: Tensor, mass: Tensor) -> Tensor:
    return points - mass.to(points.dtype) @ points


def _normalised(points: Tensor, mass: Tensor) -> Tensor:
    return normalised(points)


def _whitened(points: Tensor, mass: Tensor) -> Tensor:
    """Unit variance in every direction under `mass`; weak directions are not blown up.

    Variances below a hundredth of their mean count as that much.
    """
    centred = _centred(points, mass).double()
    covariance = centred.T @ (centred * mass.double().unsqueeze(-1))
    variances, directions = torch.linalg.eigh(covariance)
    floor = 0.01 * variances.mean().clamp_min(torch.finfo(torch.float64).tiny)
    weights = directions / variances.clamp_min(float(floor)).sqrt()
    return (centred @ weights).to(points.dtype)


# Each takes points [V, D] and token mass [V] that sums to one, and returns points [V, D'].
TRANSFORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "centred": _centred,
    "normalised": _normalised,
    "whitened": _whitened,
}


class Distance(Protocol):
    """A distance between tokens that is no distance of points."""

    def tokens(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Distances [n, m] between tokens given by their ids."""
        ...

    def to(self, device: torch.device | str) -> Distance:
        """The same on another device."""
        ...


# Each takes points [V, D], which of them may carry mass [V], a number of neighbours and l.
DISTANCES: dict[str, Callable[[Tensor, Tensor, int, float], Distance]] = {
    "geodesic": GraphDistance.between_neighbours,
}

SHAPES: dict[str, Shape] = {
    "linear": Shape(lambda d, _, typical: d, lambda _: True),
    "power": Shape(lambda d, exponent, _: d**exponent, lambda exponent: exponent <= 1),
    "saturating": Shape(lambda d, s, typical: -torch.expm1(-d / (s * typical)), lambda _: True),
}


@dataclass(frozen=True)
class Cost:
    """The cost between points.

    Attributes:
        points: transformed embeddings [V, D], zero where a token may not carry mass.
        shape: how the distance is bent.
        parameter: of the shape.
        typical: root of half the mean squared distance between two tokens of the target.
        factor: every cost is multiplied by it.
        norm: l of ‖x − y‖_l.
        distance: a distance that takes the place of ‖x − y‖_l, or None.
    """

    points: Tensor
    shape: Shape = SHAPES["linear"]
    parameter: float = 1.0
    typical: float = 1.0
    factor: float = 1.0
    norm: float = 2.0
    distance: Distance | None = None

    @property
    def metric(self) -> bool:
        """Whether the cost obeys the triangle inequality."""
        return self.shape.metric(self.parameter)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """Costs [n, m] between points [n, D] and [m, D].

        In fp32 by matrix products, so that nearly equal points are known to about 1e-3 of their
        norm; in float64 directly.
        """
        exact = x.dtype == torch.float64
        mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
        return self._bent(torch.cdist(x, y, p=self.norm, compute_mode=mode))

    def tokens(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Costs [n, m] between tokens given by their ids."""
        if self.distance is not None:
            return self._bent(self.distance.tokens(rows, columns))
        return self.between(self.points[rows], self.points[columns])

    def to(self, device: torch.device | str) -> Cost:
        """The same on another device."""
        distance = None if self.distance is None else self.distance.to(device)
        return replace(self, points=self.points.to(device), distance=distance)

    def _bent(self, distance: Tensor) -> Tensor:
        cost = self.shape.bend(distance, self.parameter, self.typical)
        return cost if self.factor == 1.0 else cost * self.factor


def build_cost(
    embedding: Tensor,
    *,
    transforms: Sequence[str] = (),
    shape: str = "linear",
    parameter: float = 1.0,
    norm: float = 2.0,
    distance: str = "straight",
    neighbours: int = 10,
    scale: Literal["spread", "raw"] = "spread",
    allowed: Tensor | None = None,
    token_mass: Tensor | None = None,
    target: Tensor | None = None,
) -> Cost:
    """The cost that the options describe, computed once before training.

    Args:
        embedding: frozen token embeddings [V, D]; float64 stays float64, the rest becomes fp32.
        transforms: names from `TRANSFORMS`, applied in turn.
        shape: a name from `SHAPES`.
        parameter: the exponent of `power`; of `saturating` the distance at which the cost has
            reached 63 %, in units of the typical distance under the target.
        norm: l.
        distance: `straight` for ‖x − y‖_l, or a name from `DISTANCES`.
        neighbours: of each token, for `geodesic`.
        scale: `spread` divides the cost by the root of half its mean square between two tokens of
            the target, which on a line is the standard deviation; `raw` leaves it.
        allowed: BoolTensor [V] of tokens that may carry mass; all of them if None.
        token_mass: [V], the weights of `centred` and `whitened`; uniform if None.
        target: [V], needed by `spread` and by `saturating`.

    Raises:
        ValueError: an unknown name, a missing target, or all costs of the target are zero.
    """
    unknown = [name for name in transforms if name not in TRANSFORMS]
    if unknown or shape not in SHAPES or distance not in ("straight", *DISTANCES):
        raise ValueError(
            f"transforms are {', '.join(TRANSFORMS)}, shapes {', '.join(SHAPES)} and distances "
            f"straight, {', '.join(DISTANCES)}; got {[*transforms]}, {shape!r} and {distance!r}"
        )
    usable = torch.ones(len(embedding), dtype=torch.bool) if allowed is None else allowed
    usable = usable.to(embedding.device)
    mass = usable if token_mass is None else torch.where(usable, token_mass, 0)
    mass = mass.double() / mass.double().sum().clamp_min(torch.finfo(torch.float64).tiny)
    points = embedding.detach().to(torch.promote_types(embedding.dtype, torch.float32))
    points = torch.where(usable.unsqueeze(-1), points, 0)
    for name in transforms:
        points = torch.where(usable.unsqueeze(-1), TRANSFORMS[name](points, mass), 0)
    # Distances do not see a shift, but their rounding does.
    points = torch.where(usable.unsqueeze(-1), _centred(points, mass), 0)
    between = (
        DISTANCES[distance](points, usable, neighbours, norm) if distance in DISTANCES else None
    )
    cost = Cost(points, SHAPES[shape], parameter, norm=norm, distance=between)
    if target is None:
        if scale == "spread" or shape == "saturating":
            raise ValueError(f"scale={scale} and shape={shape} need the target distribution")
        return cost
    cost = replace(cost, typical=cost_spread(replace(cost, shape=SHAPES["linear"]), target) or 1.0)
    if scale == "spread" and int(usable.sum()) > 1:
        spread = cost_spread(cost, target)
        if spread == 0.0:
            raise ValueError(
                "the tokens of the target distribution stand at one point, so there is no spread "
                "to divide by: use scale=raw"
            )
        cost = replace(cost, factor=1 / spread)
    return cost


def cost_spread(cost: Cost, target: Tensor) -> float:
    """Root of half the mean squared cost between two draws from `target` [V].

    Measured on the 2,048 heaviest tokens; on a line it is the standard deviation of the positions.
    """
    mass, ids = target.detach().double().topk(min(_SCALE_TOKENS, int((target > 0).sum())))
    mass = mass.to(cost.points.device) / mass.sum()
    ids = ids.to(cost.points.device)
    squares = cost.tokens(ids, ids).double().square().fill_diagonal_(0)
    return float((0.5 * (mass @ squares @ mass)).sqrt())
