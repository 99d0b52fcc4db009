"""From token embeddings to a one-dimensional transport: which line, path or slices, which scale.

The options are those of PLOT's configuration. The paper (arXiv 2604.01837) says only that
cumulative distributions are compared "projected via embeddings"; every choice here is a
reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from plot_exp.ot.line import Line, line_positions, lines_distance
from plot_exp.ot.path import path_line
from plot_exp.ot.sliced import project, random_directions, sliced_lines

LineKind = Literal["principal", "principal_unweighted", "norm", "random", "token_id"]
Transport = Literal["line", "path", "sliced"]
Scale = Literal["spread", "raw"]

# Positions that differ by less than this share of their size differ by rounding alone.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class LineTransport:
    """Transport along one line, or the mean or maximum over several.

    Attributes:
        lines: one for `line` and `path`, one for each direction for `sliced`.
        reduction: over lines.
        unit: what the positions were divided by; a distance of 1 is `unit` between embeddings.
    """

    lines: tuple[Line, ...]
    reduction: Literal["mean", "max"] = "mean"
    unit: float = 1.0

    def distance(self, p: Tensor, q: Tensor) -> Tensor:
        """Wasserstein-1 [...] between `p` [..., V] and `q` [..., V] or [V]; see `line_distance`."""
        return lines_distance(p, q, self.lines, self.reduction)

    def to(self, device: torch.device | str) -> LineTransport:
        """The same transport on another device."""
        return replace(self, lines=tuple(line.to(device) for line in self.lines))


def build_transport(
    embedding: Tensor,
    *,
    transport: Transport = "line",
    line: LineKind = "principal",
    scale: Scale = "spread",
    normalise: bool = False,
    directions: int = 64,
    sliced_reduction: Literal["mean", "max"] = "mean",
    allowed: Tensor | None = None,
    token_mass: Tensor | None = None,
    target: Tensor | None = None,
    seed: int = 0,
) -> LineTransport:
    """The transport that PLOT's options describe, computed once before training.

    Args:
        embedding: frozen token embeddings [V, D].
        transport: one line, the path in the order of ids, or slices.
        line: the line's direction, for `transport=line`.
        scale: `spread` divides every position by the standard deviation of the positions under
            `target` (for slices by its root mean square over directions); `raw` leaves them.
        normalise: divide each embedding by its l2 norm first.
        directions: number of slices.
        sliced_reduction: over slices.
        allowed: BoolTensor [V] of tokens that may carry mass; all of them if None.
        token_mass: [V], tokens' mass in the training responses, for `line=principal`.
        target: [V], the distribution that `scale=spread` refers to.
        seed: of random directions.

    Raises:
        ValueError: an option lacks the tensor that it needs, an embedding in use is not finite, or
            the positions do not differ under the target, so that there is no spread.
    """
    _check_finite(embedding, allowed)
    if normalise:
        embedding = normalised(embedding)
    lines: tuple[Line, ...]
    if transport == "path":
        lines = (path_line(embedding, allowed=allowed),)
    elif transport == "sliced":
        slices = random_directions(embedding.shape[-1], directions, seed)
        lines = sliced_lines(embedding, slices, allowed)
    elif transport == "line":
        if line == "norm" and normalise:
            raise ValueError("with normalised embeddings every norm is 1: line=norm has no length")
        z = positions(embedding, line, allowed=allowed, token_mass=token_mass, seed=seed)
        lines = (line_positions(z, allowed),)
    else:
        raise ValueError(f"transport is line, path or sliced here, not {transport!r}")
    unit = 1.0
    if scale == "spread":
        if target is None:
            raise ValueError("scale=spread needs the target distribution")
        unit = _spread_to_divide_by(lines, target)
        lines = tuple(line.scaled(1 / unit) for line in lines)
    return LineTransport(lines, sliced_reduction if transport == "sliced" else "mean", unit)


def positions(
    embedding: Tensor,
    line: LineKind,
    *,
    allowed: Tensor | None = None,
    token_mass: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """The position of every token on the line, float64 [V]; arguments as `build_transport`."""
    if (len(embedding) if allowed is None else int(allowed.sum())) <= 1:
        return embedding.new_zeros(len(embedding), dtype=torch.float64)
    if line == "token_id":
        return torch.arange(len(embedding), device=embedding.device, dtype=torch.float64)
    if line == "norm":
        rows = embedding.detach().split(16_384)
        return torch.cat([torch.linalg.vector_norm(part.double(), dim=-1) for part in rows])
    if line == "random":
        direction = random_directions(embedding.shape[-1], 1, seed)[0]
    elif line == "principal":
        if token_mass is None:
            raise ValueError("line=principal needs the tokens' mass in the training responses")
        mass = (
            token_mass
            if allowed is None
            else torch.where(allowed.to(token_mass.device), token_mass, 0)
        )
        direction = principal_direction(embedding, mass)
    elif line == "principal_unweighted":
        everything = torch.ones(len(embedding), device=embedding.device)
        direction = principal_direction(embedding, everything if allowed is None else allowed)
    else:
        raise ValueError(f"unknown line {line!r}")
    return project(embedding, direction.unsqueeze(0)).squeeze(-1)


def principal_direction(embedding: Tensor, mass: Tensor, block: int = 8_192) -> Tensor:
    """The unit direction of largest variance of the embeddings under `mass`.

    Its sign, which the variance leaves open, makes the coordinate of largest absolute value
    positive, so that machines and resumed runs agree.

    Args:
        embedding: [V, D]; rows without mass are not read.
        mass: non-negative weights [V], of any total.
        block: rows held in float64 at once.

    Returns:
        float64 [D].

    Raises:
        ValueError: no token has mass, or all that have stand at the same point.
    """
    ids = torch.nonzero(mass.to(embedding.device) > 0).flatten()
    if not len(ids):
        raise ValueError("no token has mass: there is no principal direction")
    weight = mass.to(embedding.device)[ids].double()
    weight = weight / weight.sum()
    size = embedding.shape[-1]
    mean = embedding.new_zeros(size, dtype=torch.float64)
    for part, w in zip(ids.split(block), weight.split(block), strict=True):
        mean += w @ embedding.detach()[part].double()
    covariance = embedding.new_zeros(size, size, dtype=torch.float64)
    for part, w in zip(ids.split(block), weight.split(block), strict=True):
        centred = (embedding.detach()[part].double() - mean) * w.sqrt().unsqueeze(-1)
        covariance += centred.T @ centred
    variances, directions = torch.linalg.eigh(covariance)
    if variances[-1] <= (_ROUNDING * mean.abs().max()) ** 2:
        raise ValueError(
            "the embeddings of all tokens that have mass are the same: "
            "there is no principal direction"
        )
    direction = directions[:, -1]
    return direction * direction[direction.abs().argmax()].sign()


def normalised(embedding: Tensor) -> Tensor:
    """Embeddings divided by their l2 norms, [V, D]; a zero row stays zero."""
    embedding = embedding.detach()
    # Half precision has too few digits, and too small a range, for a sum of squares.
    dtype = torch.promote_types(embedding.dtype, torch.float32)
    norms = torch.linalg.vector_norm(embedding, dim=-1, keepdim=True, dtype=dtype)
    return (embedding / norms.clamp_min(torch.finfo(dtype).tiny)).to(embedding.dtype)


def line_spread(lines: tuple[Line, ...], target: Tensor) -> float:
    """Root mean square over `lines` of the positions' standard deviation under `target` [V]."""
    variance = 0.0
    for line in lines:
        z = line.positions()
        mass = target.detach().to(z.device)[line.order].double()
        mass = mass / mass.sum()
        variance += float(mass @ (z - mass @ z).square()) / len(lines)
    return variance**0.5


def _spread_to_divide_by(lines: tuple[Line, ...], target: Tensor) -> float:
    lengths = [float(line.gaps.sum()) for line in lines]
    if max(lengths) == 0.0:
        return 1.0
    spread = line_spread(lines, target)
    if not spread > _ROUNDING * max(lengths):
        raise ValueError(
            "the target distribution has all its mass at one position of the line, so there is no "
            "spread to divide by: use scale=raw or another line"
        )
    return spread


def _check_finite(embedding: Tensor, allowed: Tensor | None, block: int = 8_192) -> None:
    bad = torch.empty(len(embedding), dtype=torch.bool, device=embedding.device)
    for part, found in zip(embedding.detach().split(block), bad.split(block), strict=True):
        found.copy_(~torch.isfinite(part).all(-1))
    if allowed is not None:
        bad &= allowed.to(bad.device)
    if bool(bad.any()):
        token = int(bad.nonzero()[0])
        raise ValueError(f"the embedding of token {token} is not finite")
