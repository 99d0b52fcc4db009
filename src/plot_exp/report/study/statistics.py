"""What several seeds say: means with intervals, and differences on the same seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plot_exp.evals.intervals import bootstrap_interval
from plot_exp.report.measures import ROUNDING

FEWEST_FOR_INTERVAL = 3


@dataclass(frozen=True)
class Summary:
    """A number over seeds.

    Attributes:
        spread: standard deviation over the seeds; None for one.
        low, high: 95 % bootstrap interval of the mean over seeds; None below three seeds, where
            resampling says nothing.
        count: seeds.
    """

    mean: float
    spread: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """The mean difference to a baseline over the seeds that both have.

    Attributes:
        low, high: 95 % interval by Student's t; None for one seed, and where the difference is the
            same on every seed: few pairs often differ by the same number of right ones, and no
            spread is not certainty. The bootstrap of a handful of pairs is too narrow to judge by.
        count: seeds in common.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def summarise(values: Sequence[float]) -> Summary:
    """Mean, spread and interval of one measure over seeds.

    Raises:
        ValueError: there are no values.
    """
    low = high = None
    if len(values) >= FEWEST_FOR_INTERVAL:
        low, high = bootstrap_interval(values)
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), spread, low, high, len(values))


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The difference on the seeds that both have; None where they share none.

    Args:
        values, baseline: by seed.
    """
    common = sorted(set(values) & set(baseline))
    if not common:
        return None
    differences = [values[seed] - baseline[seed] for seed in common]
    mean = statistics.fmean(differences)
    spread = statistics.stdev(differences) if len(common) > 1 else 0.0
    if spread <= ROUNDING:
        return Difference(mean, None, None, len(common))
    error = spread / math.sqrt(len(common))
    half = student_quantile(len(common) - 1) * error
    return Difference(mean, mean - half, mean + half, len(common))


def student_quantile(degrees: int, probability: float = 0.975) -> float:
    """The quantile of Student's t distribution, by bisection of its integrated density.

    Raises:
        ValueError: there is no degree of freedom, or the probability is not in [0.5, 1).
    """
    if degrees < 1 or not 0.5 <= probability < 1:
        raise ValueError("needs a degree of freedom and a probability in [0.5, 1)")
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        if _student_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_cdf(point: float, degrees: int) -> float:
    """P(T ≤ point) for point ≥ 0; the substitution t = √n·tan(θ) leaves ∫ cos^(n−1)."""
    angle = math.atan(point / math.sqrt(degrees))
    steps = 400
    width = angle / steps
    powers = [math.cos(width * place) ** (degrees - 1) for place in range(steps + 1)]
    # Simpson's rule.
    integral = powers[0] + powers[-1] + 4 * sum(powers[1:-1:2]) + 2 * sum(powers[2:-1:2])
    integral *= width / 3
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    return 0.5 + math.exp(log_scale) / math.sqrt(math.pi) * integral
