"""Before and after are paired by key, and nothing is invented where one is missing."""

from __future__ import annotations

import pytest

from plot_exp.report.measures import Estimate, Measure, measures, number
from plot_exp.report.outcome import signed


def by_key(metrics: dict[str, float]) -> dict[tuple[str, str | None], Measure]:
    return {(found.key, found.category): found for found in measures(metrics)}


def test_counts_and_intervals_belong_to_their_measure() -> None:
    found = by_key(
        {
            "base/eval/demo/harmful_answer_rate": 0.75,
            "base/eval/demo/harmful_answer_rate/count": 20,
            "eval/demo/harmful_answer_rate": 0.25,
            "eval/demo/harmful_answer_rate/count": 20,
            "eval/demo/harmful_answer_rate/low": 0.1,
            "eval/demo/harmful_answer_rate/high": 0.5,
        }
    )
    assert list(found) == [("eval/demo/harmful_answer_rate", None)]
    (measure,) = found.values()
    assert measure.before == Estimate(0.75, count=20)
    assert measure.after == Estimate(0.25, 0.1, 0.5, 20)
    assert measure.change == -0.5
    assert measure.count == "20"


def test_what_training_data_share_with_a_benchmark_has_a_name() -> None:
    (measure,) = measures({"eval/gsm8k/overlap": 0.0})
    assert measure.label == "Prompts of gsm8k in the training data"


def test_categories_and_parts_are_told_apart() -> None:
    found = by_key(
        {
            "val/count": 12,
            "val/count/a/b": 7,
            "val/reward_accuracy": 0.5,
            "val/reward_accuracy/a/b": 0.25,
            "val/reward_accuracy/a": 0.25,
            "val/reward_accuracy/chosen_longer": 0.5,
            "val/reward_accuracy/chosen_longer/a/b": 0.5,
            "val/logp_accuracy/mean": 0.6,
            "val/logp_accuracy/mean/a/b": 0.7,
            "val/reward_margin": 1.0,
            "val/reward_margin/chosen_longer": 2.0,
            "eval/exact_match/Mathematics": 0.4,
        }
    )
    assert set(found) == {
        ("val/reward_accuracy", None),
        ("val/reward_accuracy", "a/b"),
        ("val/reward_accuracy", "a"),
        ("val/reward_accuracy/chosen_longer", None),
        ("val/reward_accuracy/chosen_longer", "a/b"),
        ("val/logp_accuracy/mean", None),
        ("val/logp_accuracy/mean", "a/b"),
        ("val/reward_margin", None),
        ("val/reward_margin/chosen_longer", None),
        ("eval/exact_match", "Mathematics"),
    }
    assert found["val/reward_accuracy", None].count == "12"
    assert found["val/reward_accuracy", "a/b"].count == "7"
    assert found["val/reward_margin/chosen_longer", None].count == ""
    assert found["eval/exact_match", "Mathematics"].count == ""


def test_a_side_that_was_not_measured_stays_none() -> None:
    found = by_key({"val/reward_accuracy": 0.9, "base/eval/distinct_1": 0.0})
    assert found["val/reward_accuracy", None].before is None
    assert found["val/reward_accuracy", None].change is None
    assert found["eval/distinct_1", None].after is None
    assert found["eval/distinct_1", None].before == Estimate(0.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.500"),
        (-0.25, "-0.250"),
        (0.0, "0.000"),
        (0.00012, "1.2e-04"),
        (4.4e-17, "0.000"),
        (24.345, "24.34"),
        (77.0, "77"),
        (123.456, "123.5"),
        (12345.6, "12346"),
    ],
)
def test_numbers_keep_what_a_reader_needs(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.00089, "−0.001"), (0.0002, "+0.000"), (-4.4e-17, "0.000"), (0.02, "+0.020")],
)
def test_what_is_small_beside_its_interval_has_the_intervals_decimals(
    value: float, text: str
) -> None:
    assert signed(value, beside=0.02) == text
