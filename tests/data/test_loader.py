"""Batches are a pure function of seed and step."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import pytest
import torch

from plot_exp.data.collate import collate_padded
from plot_exp.data.loader import (
    STEPS_AHEAD,
    StepLoader,
    ahead,
    evaluation_batches,
    total_steps,
)
from plot_exp.data.order import epoch_order
from plot_exp.data.packing import PADDED, Layout
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


JOINED = Layout("packed", joined=True)


@pytest.mark.parametrize("layout", [PADDED, JOINED], ids=["padded", "joined"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_batch_holds_the_same_examples_however_it_is_cut(items, size, layout, processes):
    for step in range(3):
        expected = sorted(make(items, layout=layout).indices(step))
        found, counts = [], set()
        for rank in range(processes):
            loader = make(
                items, microbatch_size=size, layout=layout, rank=rank, processes=processes
            )
            parts = loader.microbatches(step)
            counts.add(len(parts))
            assert all(part.responses.examples <= size for part in parts)
            real = [part for part in parts if not part.idle]
            assert parts[: len(real)] == real
            found += [one.example.origin.row for part in real for one in part.sources]
        assert sorted(found) == expected
        assert len(counts) == 1  # every process takes as many passes


def test_padded_microbatches_hold_similar_lengths(items):
    loader = make(items, microbatch_size=2)
    rows = [[loader.layout.length(one) for one in part.sources] for part in loader.microbatches(0)]
    assert flat(rows) == sorted(flat(rows))


def test_grouped_epochs_are_whole_and_resume(items):
    found = rows_of(make(items, epochs=3.0, group_by_length=True))
    taken = flat(found)
    for epoch in range(3):
        assert sorted(taken[epoch * 10 : epoch * 10 + 10]) == list(range(10))
    for first in range(8):
        resumed = make(items, epochs=3.0, group_by_length=True, first_step=lambda at=first: at)
        assert rows_of(resumed) == found[first:]


class TestAhead:
    def test_yields_in_order_and_works_ahead(self):
        made = []

        def make_one(step):
            made.append(step)
            return step * step

        steps = ahead(make_one, range(8))
        assert next(steps) == 0
        deadline = time.monotonic() + 10
        while len(made) < 1 + STEPS_AHEAD and time.monotonic() < deadline:
            time.sleep(0.01)
        assert made == list(range(1 + STEPS_AHEAD))
        assert list(steps) == [step * step for step in range(1, 8)]

    def test_an_error_comes_where_its_step_is_due(self):
        def make_one(step):
            if step == 3:
                raise ValueError("broken")
            return step

        steps, found = ahead(make_one, range(9)), []
        with pytest.raises(ValueError, match="broken"):
            found += steps
        assert found == [0, 1, 2]

    def test_leaving_early_stops_the_thread(self):
        started = []
        steps = ahead(lambda step: started.append(step) or step, itertools.count())
        next(steps)
        steps.close()
        time.sleep(0.05)
        count = len(started)
        time.sleep(0.1)
        assert len(started) == count
        assert not [t for t in threading.enumerate() if t.name.startswith("collate")]

    def test_without_steps_there_is_nothing(self):
        assert list(ahead(lambda step: step, [])) == []


def test_evaluation_takes_each_example_once_with_little_padding(items):
    batches = list(evaluation_batches(items, 3, 0))
    rows = [source.example.origin.row for batch in batches for source in batch.sources]
    assert sorted(rows) == list(range(10))
    assert [batch.responses.examples for batch in batches] == [3, 3, 3, 1]
    padded = sum(batch.input_ids.numel() for batch in batches)
    unsorted = sum(collate_padded(items[a : a + 3], 0).input_ids.numel() for a in range(0, 10, 3))
    assert padded < unsorted
