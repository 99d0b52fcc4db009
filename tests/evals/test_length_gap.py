"""Length beside a comparison, by hand."""

from __future__ import annotations

import pytest

from plot_exp.evals.length_gap import length_gap
from plot_exp.evals.selection import spread


def test_gap_margins_and_matched_pairs_by_hand() -> None:
    found = length_gap(
        margins=[1.0, 3.0, -2.0, 0.0, 4.0],
        wins=[1, 1, 0, 0.5, 1],
        own_lengths=[110, 200, 100, 50, 100],
        other_lengths=[100, 100, 111, 50, 105],
    )
    assert found["length_gap"] == pytest.approx((10 + 100 - 11 + 0 - 5) / 5)
    assert found["length_gap/count"] == 5
    assert found["margin/own_longer"] == pytest.approx(2.0)
    assert found["margin/own_longer/count"] == 2
    assert found["margin/other_longer"] == pytest.approx(1.0)
    assert found["margin/same_length"] == 0.0
    # 110 to 100 matches; 111 to 100 does not.
    assert found["matched_win_rate/count"] == 3
    assert found["matched_win_rate"] == pytest.approx(2.5 / 3)


def test_what_has_no_pair_has_no_key() -> None:
    found = length_gap([1.0], [1.0], [10], [100])
    assert "matched_win_rate" not in found
    assert "margin/own_longer" not in found
    assert length_gap([], [], [], []) == {}


def test_empty_texts_match_each_other_alone() -> None:
    assert length_gap([0.0], [0.5], [0], [0])["matched_win_rate"] == 0.5
    assert "matched_win_rate" not in length_gap([0.0], [0.5], [0], [1])


def test_a_limit_keeps_groups_even_and_the_order() -> None:
    items = ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert spread(items, lambda item: item[0], None) == items
    assert spread(items, lambda item: item[0], 4) == ["a1", "a2", "b1", "c1"]
    assert spread(items, lambda item: item[0], 2) == ["a1", "b1"]
    assert spread(items, lambda item: item[0], 0) == []
    drawn = spread(items, lambda item: item[0], 4, seed=5)
    assert drawn == spread(items, lambda item: item[0], 4, seed=5)
    assert {item[0] for item in drawn} == {"a", "b", "c"}
