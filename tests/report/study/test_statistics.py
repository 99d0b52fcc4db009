"""Intervals over seeds against SciPy and hand arithmetic."""

from __future__ import annotations

import pytest
from scipy import stats

from plot_exp.report.study.statistics import paired, student_quantile, summarise


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30, 200])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_student_quantile_is_scipys(degrees: int, probability: float) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert student_quantile(degrees, probability) == pytest.approx(expected, rel=1e-6)


def test_paired_difference_is_the_one_sample_t_test_on_common_seeds() -> None:
    ours = {0: 0.61, 1: 0.64, 2: 0.66, 7: 0.9}
    theirs = {0: 0.60, 1: 0.60, 2: 0.61, 5: 0.1}
    found = paired(ours, theirs)
    assert found is not None
    low, high = stats.ttest_1samp([0.01, 0.04, 0.05], 0).confidence_interval(0.95)
    assert (found.count, found.mean) == (3, pytest.approx(0.1 / 3))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert not found.clear


def test_one_common_seed_gives_no_interval_and_none_gives_nothing() -> None:
    found = paired({0: 1.0}, {0: 0.5})
    assert found is not None
    assert (found.mean, found.low, found.clear) == (0.5, None, False)
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("noise", [0.0, 1e-16])
def test_equal_differences_have_no_spread_to_judge_by(noise: float) -> None:
    # Accuracies over few hundred pairs often differ by the very same number of pairs.
    found = paired({0: 0.80 + noise, 1: 0.84}, {0: 0.78, 1: 0.82})
    assert found is not None
    assert (found.low, found.high, found.clear) == (None, None, False)
    assert (found.count, found.mean) == (2, pytest.approx(0.02))


def test_an_interval_takes_three_seeds() -> None:
    assert summarise([1.0, 2.0]).low is None
    three = summarise([1.0, 2.0, 3.0])
    assert three.low is not None
    assert three.high is not None
    assert 1.0 <= three.low < three.mean < three.high <= 3.0
    assert three.spread == pytest.approx(1.0)
