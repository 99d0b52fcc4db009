"""Rows in every layout against a naive reading of who may see whom."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plot_exp.data.collate import Batch, collate
from plot_exp.data.packing import PADDED, Layout, first_fit_decreasing

from scoring_models import example

LAYOUTS = [
    Layout("shared"),
    Layout("packed"),
    Layout("packed", capacity=17),
    Layout("packed", joined=True),
    Layout("packed", joined=True, multiple=16),
    Layout("shared", multiple=8),
]
TOKENS = st.integers(3, 50)
ITEMS = st.lists(
    st.builds(
        example,
        st.lists(TOKENS, min_size=1, max_size=7),
        st.lists(st.lists(TOKENS, min_size=1, max_size=5), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


def context_of(batch: Batch, place: int) -> list[tuple[int, int]]:
    """What the token at a flattened place sees, as (position, id), itself included."""
    width = batch.input_ids.shape[1]
    row, query = divmod(place, width)
    if batch.visibility is None:
        seen = [key for key in range(query + 1) if batch.attention_mask[row, key]]
    else:
        mask = batch.visibility.mask()[row, 0, query]
        seen = [key for key in range(width) if mask[key]]
    return [(int(batch.position_ids[row, key]), int(batch.input_ids[row, key])) for key in seen]


@given(items=ITEMS, layout=st.sampled_from([PADDED, *LAYOUTS]))
def test_each_token_sees_its_prompt_and_its_response_up_to_itself(items, layout):
    batch = collate(items, 0, layout)
    sequences = [(item.prompt_ids, ids) for item in items for ids in item.response_ids]
    expected = [
        list(enumerate((*prompt, *response[:place])))
        for prompt, response in sequences
        for place in range(len(response))
    ]
    assert [context_of(batch, place) for place in batch.predict_index.tolist()] == expected
    own = [context_of(batch, place)[-1][1] for place in batch.own_index.tolist()]
    assert own == batch.targets.tolist() == [token for _, ids in sequences for token in ids]


@given(items=ITEMS, layout=st.sampled_from(LAYOUTS))
def test_what_losses_and_dropout_read_does_not_depend_on_the_layout(items, layout):
    batch, padded = collate(items, 0, layout), collate(items, 0)
    assert torch.equal(batch.targets, padded.targets)
    assert torch.equal(batch.response_of_token, padded.response_of_token)
    assert torch.equal(batch.responses.pairs, padded.responses.pairs)
    for index in ("predict_index", "own_index"):
        keys, expected = (one.token_keys.flatten()[getattr(one, index)] for one in (batch, padded))
        assert torch.equal(keys, expected)
    assert batch.tokens == sum(layout.length(item) for item in items)


@given(items=ITEMS, layout=st.sampled_from(LAYOUTS))
def test_the_mask_of_flex_attention_is_the_dense_one(items, layout):
    seen = collate(items, 0, layout).visibility
    rows, width = seen.example.shape
    row, query, key = torch.meshgrid(
        torch.arange(rows), torch.arange(width), torch.arange(width), indexing="ij"
    )
    assert torch.equal(seen.sees(row, query, key), seen.mask()[:, 0])


@given(items=ITEMS, multiple=st.sampled_from([1, 16]))
def test_pieces_are_the_blocks_of_the_dense_mask(items, multiple):
    seen = collate(items, 0, Layout("packed", joined=True, multiple=multiple)).visibility
    whole, covered, start = seen.mask()[0, 0], 0, 0
    for size, mask in zip(seen.pieces, seen.piece_masks(), strict=True):
        found = torch.ones(size, size, dtype=torch.bool).tril() if mask is None else mask[0, 0]
        assert torch.equal(whole[start : start + size, start : start + size], found)
        covered += int(found.sum())
        start += size
    assert covered == int(whole.sum())
    assert start == len(whole)


def test_a_single_response_needs_no_mask():
    items = [example([5, 6], [[7, 8]]), example([9], [[10], [11]])]
    seen = collate(items, 0, Layout("packed", joined=True)).visibility
    plain, branched = seen.piece_masks()
    assert plain is None
    assert branched is not None


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), capacity=st.integers(10, 60))
def test_first_fit_decreasing_fills_rows(lengths, capacity):
    rows = first_fit_decreasing(lengths, capacity)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    totals = [sum(lengths[index] for index in row) for row in rows]
    alone = [len(row) == 1 for row in rows]
    assert all(t <= capacity or single for t, single in zip(totals, alone, strict=True))
    # First fit leaves no two rows that are both at most half full.
    assert sum(2 * total <= capacity for total in totals) <= 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_rows_hold_what_the_layout_says(layout):
    items = [example([5] * size, [[6, 2], [7, 8, 2]]) for size in (1, 3, 9, 4)]
    shape = collate(items, 0, layout).input_ids.shape
    assert shape[1] % layout.multiple == 0
    rows = {
        "shared": 4,
        "packed": 1
        if layout.joined
        else len(first_fit_decreasing([6, 8, 14, 9], layout.capacity or 14)),
    }[layout.name]
    assert shape[0] == rows
    if layout.joined and layout.multiple == 1:
        assert shape[1] == 6 + 8 + 14 + 9
