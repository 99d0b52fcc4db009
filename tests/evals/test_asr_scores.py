"""Attack success rates by hand."""

from __future__ import annotations

import pytest

from plot_exp.data.behaviours import Behaviour
from plot_exp.data.examples import Origin
from plot_exp.evals.asr_scores import (
    Attacked,
    interval,
    loss_curve,
    over_cases,
    over_steps,
    rates,
)
from plot_exp.evals.intervals import bootstrap_interval, wilson_interval


def attacked(
    name: str,
    harmful: tuple[int, ...],
    functional: str = "standard",
    semantic: str = "harmful",
    steps: tuple[tuple[tuple[int, bool], ...], ...] = (),
    losses: tuple[tuple[float, ...], ...] = (),
) -> Attacked:
    behaviour = Behaviour(name, name, "Sure", functional, semantic, Origin("toy", 0))
    return Attacked(behaviour, tuple(map(bool, harmful)), steps, losses)


FOUR = [
    attacked("a", (1, 1, 0, 0)),
    attacked("b", (1, 1, 1, 1), semantic="illegal"),
    attacked("c", (0, 0), "contextual"),
    attacked("d", ()),
]


def test_asr_is_the_mean_over_behaviours_of_the_mean_over_cases() -> None:
    found = rates("gcg", FOUR)
    assert found["asr/gcg"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["asr/gcg/count"] == 3
    assert found["asr/gcg/standard"] == pytest.approx(0.75)
    assert found["asr/gcg/contextual"] == 0
    assert found["asr/gcg/harmful"] == pytest.approx(0.25)
    assert found["asr/gcg/harmful/count"] == 2
    low, high = bootstrap_interval([0.5, 1.0, 0.0])
    assert (found["asr/gcg/low"], found["asr/gcg/high"]) == (low, high)


def test_a_category_of_all_behaviours_has_no_number_of_its_own() -> None:
    found = rates("gcg", FOUR[:2])
    assert "asr/gcg/standard" not in found
    assert "asr/gcg/illegal" in found


def test_where_all_behaviours_agree_the_interval_is_no_point() -> None:
    assert interval([0.0] * 10) == wilson_interval(0, 10)
    assert interval([1.0] * 10) == wilson_interval(10, 10)
    assert interval([0.6]) == wilson_interval(0.6, 1)
    assert interval([0.0, 1.0]) == bootstrap_interval([0.0, 1.0])


def test_success_over_cases_is_that_of_at_least_one_of_k() -> None:
    points = over_cases(FOUR)
    assert [point["at"] for point in points] == [1, 2, 3, 4]
    # a: two of four work, so that one pair in six misses both.
    assert [point["value"] for point in points] == pytest.approx(
        [(0.5 + 1 + 0) / 3, (5 / 6 + 1 + 0) / 3, 1.0, 1.0]
    )
    assert [point["count"] for point in points] == [3, 3, 2, 2]


def test_success_over_steps_keeps_the_last_verdict_of_a_case_that_stopped() -> None:
    found = [
        attacked("a", (1,), steps=(((50, False), (100, True)),)),
        attacked("b", (0,), steps=(((50, True), (100, False), (150, False)),)),
        attacked("c", (1, 0), steps=(((100, True),), ((50, False),))),
    ]
    points = over_steps(found)
    assert [point["at"] for point in points] == [50, 100, 150]
    assert [point["value"] for point in points] == pytest.approx(
        [(0 + 1 + 0.5) / 3, (1 + 0 + 0.5) / 3, (1 + 0 + 0.5) / 3]
    )


def test_the_loss_curve_is_of_the_best_so_far() -> None:
    found = [
        attacked("a", (1,), losses=((3.0, 4.0, 1.0, 2.0),)),
        attacked("b", (1,), losses=((2.0, 1.0),)),
    ]
    assert [(point["at"], point["value"]) for point in loss_curve(found)] == [
        (1, 2.5),
        (2, 2.0),
        (3, 1.0),
        (4, 1.0),
    ]
    assert loss_curve([attacked("a", (1,))]) == []


def test_steps_before_the_first_loss_are_left_out_of_the_curve() -> None:
    late = attacked("a", (1,), losses=((float("inf"), 2.0),))
    early = attacked("b", (1,), losses=((3.0, 1.0),))
    assert [point["value"] for point in loss_curve([late, early])] == [3.0, 1.5]
    assert [point["at"] for point in loss_curve([late])] == [2.0]
