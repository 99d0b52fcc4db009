"""Batches are a pure function of seed and step."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch

from plot_exp.data.collate import Responses, collate_padded
from plot_exp.data.loader import StepLoader, evaluation_batches, total_steps
from plot_exp.data.order import epoch_order
from plot_exp.data.tokenise import TokenisedExample


@pytest.fixture
def items(example):
    """Ten examples that their first prompt token tells apart."""
    return [
        TokenisedExample(
            example("a", ["x", "y"], row), (row + 10, 5), ((6,) * (row % 4 + 1), (7, 1))
        )
        for row in range(10)
    ]


def make(items, **changes):
    settings = {
        "batch_size": 4,
        "microbatch_size": None,
        "epochs": 1.0,
        "max_steps": None,
        "seed": 3,
        "pad_id": 0,
    }
    return StepLoader(items, **(settings | changes))


def rows_of(batches):
    return [[s.example.origin.row for part in parts for s in part.sources] for parts in batches]


def flat(rows):
    return list(itertools.chain.from_iterable(rows))


@pytest.mark.parametrize("count", [1, 7, 100])
def test_an_epoch_is_a_permutation(count):
    assert sorted(epoch_order(count, seed=1, epoch=2)) == list(range(count))


def test_orders_differ_by_seed_and_epoch():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_each_example_stands_exactly_once_in_an_epoch_and_the_last_batch_is_cut(items):
    found = rows_of(make(items))
    assert [len(rows) for rows in found] == [4, 4, 2]
    assert sorted(flat(found)) == list(range(10))


def test_batches_run_on_across_the_ends_of_epochs(items):
    found = rows_of(make(items, epochs=3.0))
    assert [len(rows) for rows in found] == [4] * 7 + [2]
    taken = flat(found)
    for epoch in range(3):
        assert sorted(taken[epoch * 10 : epoch * 10 + 10]) == list(range(10))


def test_part_of_an_epoch(items):
    found = rows_of(make(items, epochs=0.5))
    assert [len(rows) for rows in found] == [4, 1]
    assert len(set(flat(found))) == 5


def test_even_a_vanishing_part_takes_one_example(items):
    assert [len(rows) for rows in rows_of(make(items, epochs=0.01))] == [1]


def test_a_batch_larger_than_the_data(items):
    assert [len(rows) for rows in rows_of(make(items, batch_size=64))] == [10]
    (once,) = rows_of(make(items, batch_size=25, max_steps=1))
    assert Counter(once).most_common()[-1][1] >= 2
    assert sorted(once[:10]) == sorted(once[10:20]) == list(range(10))


def test_max_steps_wins_over_epochs(items):
    loader = make(items, max_steps=6)
    assert len(loader) == len(list(loader)) == 6
    assert all(len(rows) == 4 for rows in rows_of(loader))


@pytest.mark.parametrize(
    ("count", "batch", "epochs", "max_steps", "steps"),
    [(10, 4, 1.0, None, 3), (10, 5, 2.0, None, 4), (3, 8, 1.0, None, 1), (10, 4, 1.0, 9, 9)],
)
def test_steps_of_a_run(count, batch, epochs, max_steps, steps):
    assert total_steps(count, batch, epochs, max_steps) == steps


@pytest.mark.parametrize("first", range(8))
def test_a_run_resumed_at_any_step_sees_the_same_batches(items, first):
    whole = list(make(items, epochs=3.0))
    resumed = list(make(items, epochs=3.0, first_step=lambda: first))
    assert rows_of(resumed) == rows_of(whole)[first:]
    for one, other in zip(resumed, whole[first:], strict=True):
        assert torch.equal(one[0].input_ids, other[0].input_ids)


def test_steps_may_be_asked_for_in_any_order(items):
    forward = make(items, epochs=5.0)
    backward = make(items, epochs=5.0)
    expected = {step: forward.indices(step) for step in range(12)}
    assert {step: backward.indices(step) for step in reversed(range(12))} == expected


def test_the_global_random_state_plays_no_part(items):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = rows_of(make(items))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert rows_of(make(items)) == one


def test_another_seed_gives_another_order(items):
    assert rows_of(make(items)) != rows_of(make(items, seed=4))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_microbatches_concatenate_to_the_batch(items, size):
    (whole,) = make(items).microbatches(0)
    parts = make(items, microbatch_size=size).microbatches(0)
    assert all(part.responses.examples <= size for part in parts)
    assert sum((part.sources for part in parts), ()) == whole.sources
    joined = Responses.concatenate([part.responses for part in parts])
    assert torch.equal(joined.pairs, whole.responses.pairs)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


def test_evaluation_takes_each_example_once_with_little_padding(items):
    batches = list(evaluation_batches(items, 3, 0))
    rows = [source.example.origin.row for batch in batches for source in batch.sources]
    assert sorted(rows) == list(range(10))
    assert [batch.responses.examples for batch in batches] == [3, 3, 3, 1]
    padded = sum(batch.input_ids.numel() for batch in batches)
    unsorted = sum(collate_padded(items[a : a + 3], 0).input_ids.numel() for a in range(0, 10, 3))
    assert padded < unsorted
