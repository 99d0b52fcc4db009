"""How well a potential over tokens agrees with an exact one.

The potentials of a problem are known up to a constant, and on the two sides of the residual up to
one each when they are compared within a side. Over both sides together nearly any potential looks
right, since giving tokens stand high and receiving ones low: the bare sign of p − q does too. So
correlations are taken within each side, and the error against the best multiple of the sign. All
are weighted by residual mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plot_exp.ot.residual import Side


@dataclass(frozen=True)
class Agreement:
    """Correlations with the exact potential, and the error that is left.

    Attributes:
        giving: correlation within the tokens that give mass; nan where a side has one value only.
        receiving: within those that receive it.
        both: over all of them; the bare sign scores high here.
        error: root mean square of the difference up to a constant, over that of the best multiple
            of sign(p − q).
    """

    giving: float
    receiving: float
    both: float
    error: float


def agreement(
    potential: Tensor, giving: Side, receiving: Side, f: Tensor, g: Tensor, *, scaled: bool = False
) -> Agreement:
    """Agreement of a potential with the exact one on the tokens of both sides.

    Args:
        potential: [V], ∂W/∂p up to a constant.
        giving: n tokens with p > q and their masses.
        receiving: m tokens with p < q and their masses.
        f: exact potential [n] of the giving side.
        g: exact potential [m] of the receiving side, so that ∂W/∂p there is −g.
        scaled: let the potential be multiplied by the factor that suits it best first, for forms
            whose cost is in another unit.
    """
    sides = (giving.tokens, receiving.tokens)
    ours = torch.cat([potential[tokens.to(potential.device)] for tokens in sides]).double().cpu()
    exact = torch.cat([f, -g]).double().cpu()
    masses = [side.masses.double().cpu() for side in (giving, receiving)]
    weight = torch.cat([mass / (2 * mass.sum()) for mass in masses])
    count = len(giving.tokens)
    sign = torch.ones_like(exact).index_fill_(0, torch.arange(count, len(exact)), -1)
    if scaled:
        ours = _multiple(ours, exact, weight)
    left = _spread(exact - _multiple(sign, exact, weight), weight)
    return Agreement(
        giving=correlation(ours[:count], exact[:count], weight[:count]),
        receiving=correlation(ours[count:], exact[count:], weight[count:]),
        both=correlation(ours, exact, weight),
        error=_spread(ours - exact, weight) / left if left > 0 else float("nan"),
    )


def correlation(x: Tensor, y: Tensor, weight: Tensor) -> float:
    """Correlation [n], [n] under weights [n]; nan where one of the two does not vary."""
    spread = _spread(x, weight) * _spread(y, weight)
    if spread <= 1e-12 * float(x.abs().max() * y.abs().max()):
        return float("nan")
    weight = weight / weight.sum()
    return float(weight @ ((x - weight @ x) * (y - weight @ y))) / spread


def _multiple(x: Tensor, exact: Tensor, weight: Tensor) -> Tensor:
    """The multiple of `x` that is nearest to `exact`, both up to a constant."""
    weight = weight / weight.sum()
    centred = x - weight @ x
    size = float(weight @ centred.square())
    return centred * (float(weight @ (centred * exact)) / size) if size > 0 else centred


def _spread(x: Tensor, weight: Tensor) -> float:
    weight = weight / weight.sum()
    return float((weight @ (x - weight @ x).square()).sqrt())
