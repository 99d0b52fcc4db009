"""One dataset is split by category, several by dataset first."""

from __future__ import annotations

from plot_exp.evals.groups import group_names


def test_one_dataset(example):
    assert group_names([example("a", ["x"], category="c")]) == [("c",)]


def test_several_datasets(example):
    found = group_names(
        [
            example("a", ["x"], dataset="one", category="c"),
            example("a", ["x"], dataset="two", category="two"),
        ]
    )
    assert found == [("one", "one/c"), ("two",)]
