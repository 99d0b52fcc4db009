"""The padded layout against a naive loop over rows, and the facts that losses read."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from plot_exp.data.collate import Responses, collate_padded, describe_responses
from plot_exp.data.tokenise import TokenisedExample

PAD = 0


@pytest.fixture
def items(example):
    """A pair, a ranking of three with scores, a demonstration, and unpaired labels."""
    return [
        TokenisedExample(example("a", ["x", "y"]), (5, 6, 7), ((8, 1), (9, 10, 1))),
        TokenisedExample(
            example("b", ["x", "y", "z"], scores=(3.0, 2.0, -1.0)),
            (11,),
            ((12, 13, 14, 1), (1,), (15, 1)),
        ),
        TokenisedExample(example("c", ["x"]), (16, 17), ((18, 1),)),
        TokenisedExample(
            example("d", ["x", "y"], desirable=(False, True)), (19, 20), ((21, 1), (22, 1))
        ),
    ]


def test_each_scored_token_is_predicted_from_the_position_before_it(items):
    batch = collate_padded(items, PAD)
    width = batch.input_ids.shape[1]
    expected = []
    rows = [(item.prompt_ids, ids) for item in items for ids in item.response_ids]
    for row, (prompt, response) in enumerate(rows):
        for offset, token in enumerate(response):
            place = len(prompt) + offset
            assert int(batch.input_ids[row, place]) == token
            expected.append((row * width + place - 1, token, row))
    assert batch.predict_index.tolist() == [index for index, _, _ in expected]
    assert batch.targets.tolist() == [token for _, token, _ in expected]
    assert batch.response_of_token.tolist() == [row for _, _, row in expected]


def test_rows_are_padded_on_the_right(items):
    batch = collate_padded(items, PAD)
    rows = [item.prompt_ids + ids for item in items for ids in item.response_ids]
    width = max(map(len, rows))
    assert batch.input_ids.shape == (len(rows), width)
    for row, ids in enumerate(rows):
        padding = width - len(ids)
        assert batch.input_ids[row].tolist() == [*ids, *[PAD] * padding]
        assert batch.attention_mask[row].tolist() == [1] * len(ids) + [0] * padding
        assert batch.position_ids[row, : len(ids)].tolist() == list(range(len(ids)))
    assert batch.tokens == sum(map(len, rows))


def test_padding_that_equals_a_token_of_the_text_changes_nothing(items):
    one, other = collate_padded(items, 0), collate_padded(items, 1)
    assert torch.equal(one.attention_mask, other.attention_mask)
    assert torch.equal(one.targets, other.targets)
    assert torch.equal(one.position_ids, other.position_ids)


def test_pairs_set_the_best_against_every_other(items):
    found = describe_responses(items)
    assert found.pairs.tolist() == [[0, 1], [2, 3], [2, 4]]
    assert found.rank.tolist() == [0, 1, 0, 1, 2, 0, 0, 0]
    assert found.example.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert found.desirable.tolist() == [-1, -1, -1, -1, -1, -1, 0, 1]
    assert found.length.tolist() == [2, 3, 4, 1, 2, 2, 2, 2]
    assert found.examples == 4
    assert [math.isnan(score) for score in found.score.tolist()] == [
        True, True, False, False, False, True, True, True,
    ]  # fmt: skip
    assert found.score[2:5].tolist() == [3.0, 2.0, -1.0]


def test_sides_of_ranked_single_and_labelled_responses(items):
    found = describe_responses(items)
    assert found.chosen.tolist() == [True, False, True, False, False, True, False, True]
    assert found.rejected.tolist() == [False, True, False, True, True, False, True, False]


def test_without_pairs_the_index_is_empty_and_two_wide(items):
    assert describe_responses(items[2:]).pairs.shape == (0, 2)


@pytest.mark.parametrize("cuts", [(1, 2, 3), (2,), (3,)])
def test_concatenated_microbatches_are_the_batch(items, cuts):
    whole = describe_responses(items)
    edges = [0, *cuts, len(items)]
    parts = [describe_responses(items[a:b]) for a, b in itertools.pairwise(edges)]
    found = Responses.concatenate(parts)
    for name, value in whole.as_tensors().items():
        other = getattr(found, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(-9.0), other.nan_to_num(-9.0)), name
        else:
            assert value == other, name


def test_moving_a_batch_moves_every_tensor_and_keeps_the_rest(items):
    batch = collate_padded(items, PAD)
    moved = batch.to("meta")
    assert moved.input_ids.is_meta
    assert moved.responses.pairs.is_meta
    assert moved.sources is batch.sources
    assert moved.tokens == batch.tokens
    assert not batch.input_ids.is_meta
