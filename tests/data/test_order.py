"""Grouping by length keeps epochs whole and random; batches are dealt out evenly."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plot_exp.data.order import balanced, epoch_order, even_sizes, grouped_order, in_runs

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=120)


@given(lengths=LENGTHS, batch=st.integers(1, 20), epoch=st.integers(0, 3))
def test_a_grouped_epoch_holds_each_example_once(lengths, batch, epoch):
    order = grouped_order(lengths, 3, epoch, batch)
    assert sorted(order) == list(range(len(lengths)))
    assert order == grouped_order(lengths, 3, epoch, batch)


@pytest.mark.parametrize("count", [1000, 1013])
def test_batches_hold_similar_lengths_and_come_in_random_order(count):
    draw = random.Random(0)
    lengths = [int(draw.expovariate(1 / 150)) + 5 for _ in range(count)]
    taken = [index for epoch in range(3) for index in grouped_order(lengths, 0, epoch, 8)]
    batches = [taken[start : start + 8] for start in range(0, len(taken), 8)]
    shuffled = [index for epoch in range(3) for index in epoch_order(count, 0, epoch)]

    def padded(order):
        return sum(8 * max(lengths[index] for index in batch) for batch in order)

    plain = padded([shuffled[start : start + 8] for start in range(0, len(shuffled), 8)])
    assert padded(batches) < 1.15 * 3 * sum(lengths) < 0.6 * plain
    # Long and short batches do not come in runs: neighbours are as far apart as any two.
    means = [statistics.fmean(lengths[index] for index in batch) for batch in batches]
    assert abs(statistics.correlation(means[:-1], means[1:])) < 0.15
    # The company of an example changes from epoch to epoch.
    company = [
        {frozenset(batch) for batch in batches[start : start + count // 8]}
        for start in (0, count // 8 + 1)
    ]
    assert len(company[0] & company[1]) <= 1


@given(lengths=LENGTHS, parts=st.integers(1, 6))
def test_parts_have_their_sizes_and_about_equal_totals(lengths, parts):
    sizes = even_sizes(len(lengths), parts)
    assert sum(sizes) == len(lengths)
    assert max(sizes) - min(sizes) <= 1
    found = balanced(lengths, sizes)
    assert [len(part) for part in found] == sizes
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))


def test_balanced_parts_beat_unbroken_ones():
    draw = random.Random(1)
    for _ in range(20):
        lengths = [int(draw.expovariate(1 / 150)) + 5 for _ in range(64)]
        totals = [
            [sum(lengths[place] for place in part) for part in parts]
            for parts in (
                balanced(lengths, [8] * 8),
                [range(start, start + 8) for start in range(0, 64, 8)],
            )
        ]
        assert max(totals[0]) < max(totals[1])
        assert max(totals[0]) < 1.3 * sum(lengths) / 8


def test_runs_are_sorted_unless_one_takes_all():
    lengths = [5, 1, 4, 2]
    assert in_runs(lengths, 4) == [[0, 1, 2, 3]]
    assert in_runs(lengths, 2) == [[1, 3], [2, 0]]
    assert in_runs(lengths, 3) == [[1, 3, 2], [0]]
