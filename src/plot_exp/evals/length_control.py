"""Length-controlled win rates: a logistic model of preference, asked at equal lengths.

Dubois et al., "Length-Controlled AlpacaEval" (arXiv 2404.04475), as AlpacaEval 2 publishes it: the
log-odds that the model's output is preferred are

    length · tanh(Δ / std(Δ)) + difficulty · z + model,

where Δ is the baseline's length in characters less the model's, and z the difficulty of the
instruction. The win rate at Δ = 0 is the mean over instructions of the model without its first
part. The baseline's own weights are zero, so that it wins half against itself.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FOLDS = 5
STRENGTHS = tuple(np.logspace(-4, 4, 10))
# How much the rows of the baselines that were made longer and shorter on purpose weigh; half each.
GAMED_WEIGHT = 0.2
_TOLERANCE = 1e-9
_STEPS = 200


@dataclass(frozen=True)
class Weights:
    """What the logistic model multiplies: the length term, the difficulty, and 1."""

    length: float
    difficulty: float
    model: float


BASELINE = Weights(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Comparisons:
    """One row an instruction, all arrays [N].

    Attributes:
        preference: in [0, 1], 1 where the model's output is preferred.
        length: tanh(Δ / std(Δ)), Δ the baseline's characters less the model's.
        difficulty: of the instruction.
        own: 1 for the model that is measured, 0 for rows of the baseline's own variants.
        sample_weight: of a row in the fit.
    """

    preference: Floats
    length: Floats
    difficulty: Floats
    own: Floats
    sample_weight: Floats

    @property
    def design(self) -> Floats:
        """[N, 3] what the three weights multiply."""
        return np.stack([self.length, self.difficulty, self.own], axis=1)

    def take(self, rows: NDArray[np.intp]) -> Comparisons:
        """Some of the rows."""
        return Comparisons(*(column[rows] for column in vars(self).values()))

    def joined(self, other: Comparisons) -> Comparisons:
        """These rows and those of `other`, in this order."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Comparisons(*(np.concatenate(pair) for pair in pairs))


def length_term(difference: Floats) -> Floats:
    """tanh(Δ / std(Δ)) with the standard deviation of a sample; zeros where all are equal.

    Args:
        difference: [N] the baseline's characters less the model's.
    """
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)


def comparisons(preference: Floats, difference: Floats, difficulty: Floats) -> Comparisons:
    """The rows of one model against the baseline; rows without a preference are NaN and left out.

    The standard deviation of the length differences is taken over all rows, as published.
    """
    ones = np.ones(len(preference))
    found = Comparisons(preference, length_term(difference), difficulty, ones, ones)
    return found.take(np.flatnonzero(~np.isnan(preference)))


def gamed(preference: Floats, length: Floats, difficulty: Floats) -> Comparisons:
    """Rows of the baseline's lengthened and shortened variants, which steady the shared weights.

    Args:
        length: tanh of the standardised difference.
    """
    zeros = np.zeros(len(preference))
    weight = np.full(len(preference), GAMED_WEIGHT / 2)
    return Comparisons(preference, length, difficulty, zeros, weight)


def predict(weights: Weights, difficulty: Floats, baseline: Weights = BASELINE) -> Floats:
    """[N] the probability that the model is preferred at equal lengths."""
    return _sigmoid(
        (weights.difficulty - baseline.difficulty) * difficulty + weights.model - baseline.model
    )


def fit(rows: Comparisons) -> tuple[Weights, float]:
    """The weights, and the strength C that was chosen for them.

    C·Σ w·cross-entropy + ‖weights‖₁ is minimised without an intercept, C being chosen from ten
    between 1e-4 and 1e4 by the cross-entropy of held-out rows in five folds, as published.

    Raises:
        ValueError: there are fewer than two rows.
    """
    if len(rows.preference) < 2:
        raise ValueError("a length-controlled win rate needs at least two comparisons")
    strength = _choose_strength(rows)
    return Weights(*map(float, solve(rows, strength))), strength


def solve(rows: Comparisons, strength: float) -> Floats:
    """[3] the weights that minimise the penalised loss, by proximal Newton steps."""
    design, weights = rows.design, np.zeros(3)
    value = _objective(rows, design, weights, strength)
    for _ in range(_STEPS):
        probability = _sigmoid(design @ weights)
        scale = strength * rows.sample_weight
        gradient = design.T @ (scale * (probability - rows.preference))
        curvature = scale * probability * (1 - probability)
        hessian = (design * curvature[:, None]).T @ design + 1e-12 * np.eye(3)
        step = _penalised_quadratic(gradient, hessian, weights) - weights
        weights, value, done = _line_search(rows, design, weights, step, value, strength)
        if done:
            break
    return weights


def _line_search(
    rows: Comparisons,
    design: Floats,
    weights: Floats,
    step: Floats,
    value: float,
    strength: float,
) -> tuple[Floats, float, bool]:
    """Halves the step until the objective falls; done where no step can lower it further."""
    for _ in range(40):
        candidate = weights + step
        found = _objective(rows, design, candidate, strength)
        if found <= value:
            return candidate, found, bool(np.abs(step).max() < _TOLERANCE)
        step = step / 2
    return weights, value, True


def _penalised_quadratic(gradient: Floats, hessian: Floats, start: Floats) -> Floats:
    """Coordinate descent on the quadratic model of the loss at `start` plus the L1 norm."""
    weights = start.copy()
    for _ in range(100):
        before = weights.copy()
        for place in range(len(weights)):
            slope = gradient[place] + hessian[place] @ (weights - start)
            target = hessian[place, place] * weights[place] - slope
            shrunk = np.sign(target) * max(abs(target) - 1.0, 0.0)
            weights[place] = shrunk / hessian[place, place]
        if np.abs(weights - before).max() < _TOLERANCE / 10:
            break
    return weights


def _objective(rows: Comparisons, design: Floats, weights: Floats, strength: float) -> float:
    loss = rows.sample_weight @ _cross_entropy(rows.preference, design @ weights)
    return float(strength * loss + np.abs(weights).sum())


def _choose_strength(rows: Comparisons) -> float:
    """The strength whose held-out cross-entropy, averaged over the folds, is least.

    Rows stand in folds in turn, which balances them as the published grouped folds do.
    """
    count = len(rows.preference)
    folds = min(FOLDS, count)
    fold = np.arange(count) % folds
    losses = np.zeros(len(STRENGTHS))
    for number in range(folds):
        train = rows.take(np.flatnonzero(fold != number))
        held = rows.take(np.flatnonzero(fold == number))
        for place, strength in enumerate(STRENGTHS):
            log_odds = held.design @ solve(train, strength)
            entropy = _cross_entropy(held.preference, log_odds)
            losses[place] += float((held.sample_weight * entropy).mean())
    return float(STRENGTHS[int(losses.argmin())])


def _cross_entropy(preference: Floats, log_odds: Floats) -> Floats:
    return np.logaddexp(0.0, log_odds) - preference * log_odds


def _sigmoid(log_odds: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -log_odds))


def as_list(weights: Weights) -> list[float]:
    """The weights in the order of the published table."""
    return list(astuple(weights))
