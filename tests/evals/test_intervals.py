"""Intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from plot_exp.evals.intervals import bootstrap_interval, summarise, wilson_interval


def test_the_bootstrap_covers_the_mean_of_a_skewed_distribution():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.exponential(2.0, 60))
        covered += low <= 2.0 <= high
    assert 0.88 <= covered / 200 <= 0.99  # the percentile bootstrap is a little narrow here


def test_the_bootstrap_is_near_the_normal_interval_of_many_values():
    values = np.random.default_rng(1).normal(3.0, 2.0, 4000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize(("successes", "count"), [(0, 7), (7, 7), (3, 10), (190, 200), (1, 1)])
def test_wilson_is_the_textbooks(successes, count):
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes, count) == pytest.approx(tuple(expected), abs=1e-6)


def test_a_rate_at_its_end_keeps_a_width():
    found = summarise("rate", [0.0] * 7, rate=True)
    assert found["rate"] == 0.0
    assert found["rate/low"] == 0.0
    assert found["rate/high"] == pytest.approx(0.354, abs=1e-3)


def test_values_with_ties_are_bootstrapped():
    values = [0.0, 0.5, 1.0, 1.0]
    found = summarise("accuracy", values, rate=True)
    assert (found["accuracy/low"], found["accuracy/high"]) == bootstrap_interval(values)
    assert found["accuracy"] == 0.625
    assert found["accuracy/count"] == 4


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_one_value_and_none():
    assert bootstrap_interval([3.5]) == (3.5, 3.5)
    assert summarise("key", [], rate=True) == {}
    for interval in (lambda: bootstrap_interval([]), lambda: wilson_interval(0, 0)):
        with pytest.raises(ValueError, match="at least one value"):
            interval()


def test_a_margin_of_zero_everywhere_is_zero_without_doubt() -> None:
    """Wilson's interval is that of a rate; a margin is none."""
    found = summarise("reward_margin", [0.0] * 7, rate=False)
    assert (found["reward_margin/low"], found["reward_margin/high"]) == (0.0, 0.0)


def test_an_interval_of_no_or_every_success_holds_the_rate_itself() -> None:
    for count in range(1, 200):
        assert wilson_interval(0, count)[0] == 0.0
        assert wilson_interval(count, count)[1] == 1.0
