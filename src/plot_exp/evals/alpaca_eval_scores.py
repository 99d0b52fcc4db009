"""AlpacaEval 2's numbers from annotations: win rate, length-controlled win rate, counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plot_exp.evals import length_control
from plot_exp.evals.alpaca_eval_records import DRAW, Annotation
from plot_exp.evals.intervals import summarise
from plot_exp.evals.length_control import Comparisons, Floats
from plot_exp.evals.length_control_tables import (
    PUBLISHED_ANNOTATOR,
    PUBLISHED_BASELINE,
    Tables,
)
from plot_exp.evals.length_gap import length_gap

REFITS = 200
# Of tanh(Δ / std): below it the length term can hardly be told from the model's own.
LEAST_SPREAD = 0.01


@dataclass(frozen=True)
class Scores:
    """AlpacaEval's numbers, rates in percent, without a prefix.

    Attributes:
        notes: how the length-controlled win rate was made, or why there is none; what was left out.
    """

    metrics: dict[str, float]
    notes: list[str]


def score(annotations: Sequence[Annotation], tables: Tables) -> Scores:
    """Every number of one model against one baseline.

    Raises:
        ValueError: there are no annotations.
    """
    if not annotations:
        raise ValueError("there are no annotations")
    metrics = win_rates([annotation.preference for annotation in annotations])
    controlled = length_controlled(annotations, tables)
    metrics |= controlled.metrics | _lengths(annotations)
    notes = list(controlled.notes)
    if unjudged := sum(annotation.preference is None for annotation in annotations):
        notes.append(f"{unjudged} of {len(annotations)} have no readable preference: left out.")
    return Scores(metrics, notes)


def win_rates(preferences: Sequence[float | None]) -> dict[str, float]:
    """Win rate, its standard error and interval, and discrete counts, as the leaderboard has them.

    Args:
        preferences: in [1, 2], or None where the judge gave none: such are counted, never averaged.
    """
    shares = [value - 1 for value in preferences if value is not None]
    found = {"unjudged": float(len(preferences) - len(shares))}
    if not shares:
        return found
    wins = sum(share > DRAW - 1 for share in shares)
    draws = sum(share == DRAW - 1 for share in shares)
    found |= summarise("win_rate", [100 * share for share in shares], rate=False)
    if len(shares) > 1:
        error = np.std(shares, ddof=1) / math.sqrt(len(shares))
        found["standard_error"] = 100 * float(error)
    found |= {
        "wins": float(wins),
        "wins_baseline": float(len(shares) - wins - draws),
        "draws": float(draws),
        "discrete_win_rate": 100 * (wins + draws / 2) / len(shares),
    }
    return found


def length_controlled(annotations: Sequence[Annotation], tables: Tables) -> Scores:
    """The win rate at equal lengths.

    The published weights of a model are used for annotations of the published judge against the
    published baseline. Otherwise the logistic model is fitted, with the rows of the baseline's
    variants where these are at hand, as published.
    """
    unknown = sum(annotation.instruction not in tables.difficulty for annotation in annotations)
    if not tables.difficulty:
        return Scores({}, ["lc_win_rate left out: no table of instruction difficulties."])
    if unknown:
        why = f"{unknown} of {len(annotations)} instructions have no published difficulty"
        return Scores({}, [f"lc_win_rate left out: {why}."])
    difficulty = np.array([tables.difficulty[one.instruction] for one in annotations])
    if annotations[0].model_name == annotations[0].baseline_name:
        return Scores({"lc_win_rate": 50.0}, ["lc_win_rate is 50 by definition: the baseline."])
    fitted = _fitted(annotations, difficulty, tables)
    published = _published(annotations, difficulty, tables)
    if published is None:
        return fitted
    metrics = dict(published.metrics)
    if refit := fitted.metrics.get("lc_win_rate"):
        metrics["refit_lc_win_rate"] = refit
        # The published fit cannot be repeated on draws; our own's spread stands around its value.
        for end in ("lc_win_rate/low", "lc_win_rate/high"):
            metrics[end] = metrics["lc_win_rate"] + fitted.metrics[end] - refit
    return Scores(metrics, published.notes)


def _published(
    annotations: Sequence[Annotation], difficulty: Floats, tables: Tables
) -> Scores | None:
    first = annotations[0]
    published = (PUBLISHED_ANNOTATOR, PUBLISHED_BASELINE)
    if (
        first.annotator,
        first.baseline_name,
    ) != published or first.model_name not in tables.weights:
        return None
    baseline = tables.weights.get(first.baseline_name, length_control.BASELINE)
    predicted = length_control.predict(tables.weights[first.model_name], difficulty, baseline)
    note = f"lc_win_rate by the published weights of {first.model_name}."
    return Scores(_predicted(predicted), [note])


def _fitted(annotations: Sequence[Annotation], difficulty: Floats, tables: Tables) -> Scores:
    preference = np.array(
        [math.nan if one.preference is None else one.preference - 1 for one in annotations]
    )
    if np.count_nonzero(~np.isnan(preference)) < 2:
        return Scores({}, ["lc_win_rate left out: it takes two comparisons to fit."])
    difference = np.array([float(one.length_difference) for one in annotations])
    own = length_control.comparisons(preference, difference, difficulty)
    if own.length.std() < LEAST_SPREAD and difference.any():
        why = "the model's answers differ from the baseline's by nearly the same length everywhere"
        return Scores({}, [f"lc_win_rate left out: {why}, so that nothing tells length apart."])
    rows = own if tables.gamed is None else tables.gamed.joined(own)
    weights, strength = length_control.fit(rows)
    if not any(length_control.as_list(weights)):
        why = f"{len(own.preference)} comparisons are too few, so that the fit keeps no weight"
        return Scores({}, [f"lc_win_rate left out: {why}."])
    metrics = _predicted(length_control.predict(weights, difficulty))
    metrics |= _interval(own, tables.gamed, strength)
    steadied = "with" if tables.gamed is not None else "without"
    note = (
        f"lc_win_rate fitted on {len(own.preference)} comparisons (C = {strength:.3g}), {steadied} "
        "the published rows of the baseline's longer and shorter variants."
    )
    return Scores(metrics, [note])


def _predicted(predicted: Floats) -> dict[str, float]:
    found = {"lc_win_rate": 100 * float(predicted.mean())}
    found["lc_win_rate/count"] = float(len(predicted))
    if len(predicted) > 1:
        # The leaderboard's: how the prediction varies over instructions, not how sure the fit is.
        found["lc_standard_error"] = 100 * float(predicted.std(ddof=1)) / math.sqrt(len(predicted))
    return found


def _interval(own: Comparisons, others: Comparisons | None, strength: float) -> dict[str, float]:
    """The bootstrap over the comparisons, fitted anew on each draw with the same strength."""
    rng = np.random.default_rng(0)
    count = len(own.preference)
    rates = []
    for _ in range(REFITS):
        drawn = own.take(rng.integers(0, count, count))
        rows = drawn if others is None else others.joined(drawn)
        weights = length_control.Weights(*map(float, length_control.solve(rows, strength)))
        rates.append(100 * length_control.predict(weights, drawn.difficulty).mean())
    low, high = np.percentile(rates, [2.5, 97.5])
    return {"lc_win_rate/low": float(low), "lc_win_rate/high": float(high)}


def _lengths(annotations: Sequence[Annotation]) -> dict[str, float]:
    judged = [one for one in annotations if one.preference is not None]
    lengths = [len(one.model) for one in annotations]
    found = {"length": float(np.mean(lengths))}
    if not judged:
        return found
    shares = [(one.preference or 0.0) - 1 for one in judged]
    return found | length_gap(
        [2 * share - 1 for share in shares],
        shares,
        [len(one.model) for one in judged],
        [len(one.baseline) for one in judged],
    )
