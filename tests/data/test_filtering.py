"""Which examples a share of the lowest or highest reward keeps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plot_exp.data.filtering import kept_indices


def test_by_hand() -> None:
    """Half of five, rounded up, is three: the rewards 1, 1 and 2."""
    rewards = [3.0, 1.0, 2.0, 1.0, 5.0]

    assert kept_indices(rewards, 0.5, "lowest") == [1, 2, 3]
    assert kept_indices(rewards, 0.5, "highest") == [0, 2, 4]
    assert kept_indices(rewards, 1.0, "lowest") == [0, 1, 2, 3, 4]


def test_of_equal_rewards_the_first_stay() -> None:
    assert kept_indices([1.0, 1.0, 1.0, 1.0], 0.5, "lowest") == [0, 1]
    assert kept_indices([1.0, 1.0, 1.0, 1.0], 0.5, "highest") == [0, 1]


def test_five_per_cent_of_a_hundred_is_five() -> None:
    """0.05·100 in binary is a little more than 5."""
    assert len(kept_indices([float(n) for n in range(100)], 0.05, "lowest")) == 5


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.floats(0.001, 1))
def test_what_stays_is_never_above_what_goes(rewards: list[float], share: float) -> None:
    kept = kept_indices(rewards, share, "lowest")
    gone = set(range(len(rewards))) - set(kept)

    assert kept == sorted(set(kept))
    assert len(kept) == math.ceil(round(share * len(rewards), 9))
    assert all(rewards[one] <= rewards[other] for one in kept for other in gone)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        kept_indices([1.0], share, "lowest")


def test_a_reward_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="example 1 is nan"):
        kept_indices([1.0, math.nan], 0.5, "lowest")
