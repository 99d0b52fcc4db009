"""Cuts and samples depend on the seed and the content, and no prompt stands on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data.examples import Message, Origin, PreferenceExample, Split
from plot_exp.data.overlap import overlap, prompt_hash
from plot_exp.data.splits import OVERLAP_KEPT, OVERLAP_REMOVED, assemble, cut, sample
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def example(prompt: str, response: str, row: int = 0) -> PreferenceExample:
    return PreferenceExample(
        (Message("user", prompt),), (response, "no"), "c", "d", Origin("file", row)
    )


ROWS = [example(f"prompt {index // 3}", f"answer {index}", index) for index in range(300)]


def test_a_cut_takes_the_fraction_and_shares_no_prompt() -> None:
    split = cut(ROWS, 0.1, seed=0)
    assert len(split.train) + len(split.validation) == 300
    assert 30 <= len(split.validation) <= 32
    assert overlap(split) == 0


def test_a_cut_does_not_depend_on_the_order_of_rows_but_on_the_seed() -> None:
    def held_out(rows: list[PreferenceExample], seed: int) -> set[str]:
        return {row.responses[0] for row in cut(rows, 0.1, seed).validation}

    assert held_out(ROWS, 0) == held_out(ROWS[::-1], 0)
    assert held_out(ROWS, 0) != held_out(ROWS, 1)


@given(st.lists(st.integers(0, 5), min_size=2), st.floats(0.01, 0.99), st.integers(0, 9))
def test_both_sides_of_a_cut_hold_something(prompts: list[int], fraction: float, seed: int) -> None:
    rows = [example(f"p{prompt}", f"r{index}") for index, prompt in enumerate(prompts)]
    if len(set(prompts)) < 2:
        with pytest.raises(UserError, match="at least 2"):
            cut(rows, fraction, seed)
        return
    split = cut(rows, fraction, seed)
    assert split.train
    assert split.validation
    assert overlap(split) == 0


def test_a_sample_keeps_the_order_and_ignores_it_for_the_choice() -> None:
    chosen = sample(ROWS, 20, seed=3)
    assert [row.origin.row for row in chosen] == sorted(row.origin.row for row in chosen)
    reversed_choice = {row.origin.row for row in sample(ROWS[::-1], 20, seed=3)}
    assert {row.origin.row for row in chosen} == reversed_choice
    assert sample(ROWS, None, seed=0) == ROWS


def test_prompts_match_whatever_the_case_and_the_white_space() -> None:
    same = [
        prompt_hash((Message("user", text),)) for text in ("Hi  there\n", "hi there", "HI\tTHERE")
    ]
    assert len(set(same)) == 1
    assert prompt_hash((Message("system", "hi there"),)) != same[0]


@pytest.mark.parametrize("remove", [False, True])
def test_overlap_is_counted_and_removed_on_request(remove: bool) -> None:
    groups = [
        {
            "train": [example("a", "1", 0), example("b", "2", 1)],
            "validation": [example("A ", "3", 9)],
        }
    ]
    tally = Tally("x")
    split = assemble(groups, DatasetConfig(remove_overlap=remove), tally)
    assert [row.responses[0] for row in split.train] == (["2"] if remove else ["1", "2"])
    assert overlap(split) == (0 if remove else 1)
    assert tally.dropped == ({OVERLAP_REMOVED: 1} if remove else {})
    assert tally.changed == ({} if remove else {OVERLAP_KEPT: 1})


def test_groups_without_a_split_of_their_own_are_cut_together() -> None:
    groups = [{"all": ROWS[:150]}, {"all": ROWS[150:]}, {"train": [example("t", "1")]}]
    split = assemble(groups, DatasetConfig(limit=50, validation_limit=7), Tally("x"))
    assert (len(split.train), len(split.validation)) == (50, 7)
    assert overlap(Split(split.train, split.validation)) == 0
