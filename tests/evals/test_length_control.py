"""The logistic model of preference is the published one, fitted to its least."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from plot_exp.evals import length_control
from plot_exp.evals.length_control import Weights, comparisons, fit, gamed, predict, solve


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Preferences in [0, 1], length differences and difficulties."""
    rng = np.random.default_rng(seed)
    difference = rng.normal(-300, 600, count)
    difficulty = rng.normal(0, 1.5, count)
    log_odds = -1.5 * np.tanh(difference / difference.std(ddof=1)) + 0.8 * difficulty - 1.0
    preference = np.clip(1 / (1 + np.exp(-log_odds)) + rng.normal(0, 0.2, count), 0, 1)
    return preference, difference, difficulty


@pytest.mark.parametrize("strength", [1e-4, 0.006, 0.36, 21.5, 1e4])
@pytest.mark.parametrize("with_variants", [False, True])
def test_the_fit_is_that_of_liblinear(strength: float, with_variants: bool) -> None:
    rows = comparisons(*drawn(120))
    if with_variants:
        preference, difference, difficulty = drawn(80, seed=1)
        rows = gamed(preference, np.tanh(difference / 500), difficulty).joined(rows)
        assert rows.sample_weight[:80].tolist() == [0.1] * 80
    doubled = np.concatenate([rows.design, rows.design])
    labels = np.repeat([1, 0], len(rows.preference))
    shares = np.concatenate([rows.preference, 1 - rows.preference])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = LogisticRegression(
            penalty="l1",
            solver="liblinear",
            fit_intercept=False,
            C=strength,
            tol=1e-10,
            max_iter=10_000,
        ).fit(doubled, labels, sample_weight=shares * np.tile(rows.sample_weight, 2))
    np.testing.assert_allclose(solve(rows, strength), oracle.coef_[0], atol=1e-6)


def test_the_weights_that_made_the_preferences_are_found() -> None:
    rng = np.random.default_rng(2)
    _, difference, difficulty = drawn(20_000, seed=3)
    length = np.tanh(difference / difference.std(ddof=1))
    log_odds = -1.2 * length + 0.9 * difficulty - 0.7
    preference = (rng.random(20_000) < 1 / (1 + np.exp(-log_odds))).astype(float)
    weights, _ = fit(comparisons(preference, difference, difficulty))
    assert (weights.length, weights.difficulty, weights.model) == pytest.approx(
        (-1.2, 0.9, -0.7), abs=0.08
    )


def test_a_preference_for_length_alone_is_half_at_equal_lengths() -> None:
    rng = np.random.default_rng(4)
    difference = -np.abs(rng.normal(800, 500, 4000))
    length = np.tanh(difference / difference.std(ddof=1))
    preference = 1 / (1 + np.exp(3 * length))
    weights, _ = fit(comparisons(preference, difference, rng.normal(0, 1, 4000)))
    assert preference.mean() > 0.8
    assert predict(weights, np.zeros(5)).mean() == pytest.approx(0.5, abs=0.02)


def test_the_prediction_by_hand() -> None:
    found = predict(Weights(9.0, 2.0, -1.0), np.array([0.5, 0.0]))
    assert found == pytest.approx([0.5, 1 / (1 + np.e)])
    same = Weights(-1.0, 0.4, 0.3)
    assert predict(same, np.array([-2.0, 7.0]), baseline=same) == pytest.approx([0.5, 0.5])


def test_rows_without_a_preference_are_left_out_after_the_spread_is_taken() -> None:
    difference = np.array([100.0, -100.0, 900.0])
    rows = comparisons(np.array([0.2, 0.4, np.nan]), difference, np.zeros(3))
    assert rows.length == pytest.approx(np.tanh(difference / difference.std(ddof=1))[:2])


@pytest.mark.parametrize("difference", [[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
def test_equal_differences_leave_no_length_term(difference: list[float]) -> None:
    rows = comparisons(np.array([0.9, 0.8, 0.7]), np.array(difference), np.zeros(3))
    weights, _ = fit(rows)
    assert weights.length == 0.0
    assert np.isfinite(length_control.as_list(weights)).all()


def test_one_comparison_is_too_few() -> None:
    with pytest.raises(ValueError, match="two comparisons"):
        fit(comparisons(np.array([0.5]), np.array([1.0]), np.array([0.0])))


def test_preferences_all_alike_have_finite_weights() -> None:
    weights, _ = fit(comparisons(np.ones(50), *drawn(50)[1:]))
    assert np.isfinite(length_control.as_list(weights)).all()
    assert predict(weights, np.zeros(1))[0] > 0.9
