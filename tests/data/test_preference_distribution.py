"""PLOT's target by hand.

Four tokens, chosen [0 0 1] and [2], rejected [1 1] and [2 3]: Q₊ = (2, 1, 1, 0)/4 and
Q₋ = (0, 2, 1, 1)/4, so Q_diff = (½, −¼, 0, −¼). relu: (1, 0, 0, 0). absolute: (½, ¼, 0, ¼).
shift by −¼: (¾, 0, ¼, 0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from plot_exp.data import preference_distribution as preference
from plot_exp.data.preference_distribution import (
    PreferenceDistribution,
    TokenCounts,
    allowed_tokens,
    count_tokens,
    difference,
    target,
)
from plot_exp.errors import UserError

ALL = torch.ones(4, dtype=torch.bool)


def worked() -> TokenCounts:
    return count_tokens([[0, 0, 1], [2]], [[1, 1], [2, 3]], 4)


def test_counts() -> None:
    counts = worked()
    assert counts.chosen.tolist() == [2, 1, 1, 0]
    assert counts.rejected.tolist() == [0, 2, 1, 1]
    assert (counts.chosen_responses, counts.rejected_responses) == (2, 2)
    assert counts.chosen.dtype == torch.int64
    assert counts.mass(ALL).tolist() == [0.25, 0.375, 0.25, 0.125]


def test_counts_take_any_iterable_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preference, "_BLOCK_RESPONSES", 2)
    responses = [np.array([0, 1]), torch.tensor([1]), [], (3,), [1, 1]]
    counts = count_tokens(iter(responses), iter([]), 4)
    assert counts.chosen.tolist() == [1, 4, 0, 1]
    assert counts.chosen_responses == 5
    assert counts.rejected_responses == 0


@pytest.mark.parametrize("token", [4, -1])
def test_ids_outside_the_vocabulary_are_named(token: int) -> None:
    with pytest.raises(ValueError, match=f"rejected response holds token id {token}.*4 tokens"):
        count_tokens([[0]], [[1, token]], 4)


def test_allowed_tokens() -> None:
    assert allowed_tokens(6, [0, 9, -100], 4).tolist() == [False, True, True, True, False, False]
    assert allowed_tokens(3, [], None).tolist() == [True, True, True]
    assert allowed_tokens(3, [], 7).tolist() == [True, True, True]


def test_difference_by_hand() -> None:
    signed = difference(worked(), ALL)
    assert signed.tolist() == [0.5, -0.25, 0.0, -0.25]
    assert signed.dtype == torch.float64


def test_disallowed_tokens_count_on_neither_side() -> None:
    allowed = torch.tensor([False, True, True, True])
    signed = difference(worked(), allowed)
    assert signed.tolist() == [0.0, 0.0, 0.25, -0.25]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("relu", [1.0, 0.0, 0.0, 0.0]),
        ("absolute", [0.5, 0.25, 0.0, 0.25]),
        ("shift", [0.75, 0.0, 0.25, 0.0]),
    ],
)
def test_transforms_by_hand(transform: preference.Transform, expected: list[float]) -> None:
    assert target(difference(worked(), ALL), transform).tolist() == expected


def test_softmax_and_its_temperature() -> None:
    signed = difference(worked(), ALL)
    weights = np.exp(signed.numpy() / 0.1)
    expected = torch.from_numpy(weights / weights.sum())
    torch.testing.assert_close(target(signed, "softmax", 0.1), expected)


def test_anchor_is_the_reference_plus_gamma_times_the_difference() -> None:
    """renorm(relu((¼, ¼, ¼, ¼) + 2·(½, −¼, 0, −¼))) = (1.25, 0, ¼, 0) / 1.5."""
    signed = difference(worked(), ALL)
    moved = target(signed, "relu", anchor=torch.full((4,), 0.25), gamma=2.0)
    assert moved.tolist() == pytest.approx([1.25 / 1.5, 0, 0.25 / 1.5, 0])


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10**6),
    st.integers(2, 30),
    st.sampled_from(["relu", "shift", "softmax", "absolute"]),
    st.booleans(),
)
def test_a_target_is_a_distribution_on_the_allowed_tokens(
    seed: int, size: int, transform: preference.Transform, anchored: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(0, 9, (2, size), generator=generator)
    allowed = torch.rand(size, generator=generator) < 0.7
    allowed[:2] = True
    sides[:, :2] = torch.tensor([[3, 1], [1, 3]])
    anchor = torch.rand(size, generator=generator).softmax(0) if anchored else None
    signed = difference(TokenCounts(sides[0], sides[1], 1, 1), allowed)
    assert float(signed.sum()) == pytest.approx(0, abs=1e-12)
    result = target(signed, transform, 0.5, allowed, anchor, 0.5)
    assert float(result.sum()) == pytest.approx(1, rel=1e-12)
    assert bool((result >= 0).all())
    assert not bool(result[~allowed].any())


def test_significance_against_the_two_sample_test() -> None:
    """Token 0: 30 of 100 against 10 of 100, pooled 0.2, error √(0.2·0.8·0.02), z = 3.54.

    Token 1: 40 against 45, z = −0.72. Token 2: 30 against 45, z = −2.19.
    """
    counts = TokenCounts(torch.tensor([30, 40, 30]), torch.tensor([10, 45, 45]), 1, 1)
    allowed = torch.ones(3, dtype=torch.bool)
    assert difference(counts, allowed).tolist() == pytest.approx([0.2, -0.05, -0.15])
    at_two = difference(counts, allowed, significance=2.0)
    assert at_two.tolist() == pytest.approx([0.2, 0, -0.15])
    at_three = difference(counts, allowed, significance=3.0)
    assert at_three.tolist() == pytest.approx([0.2, 0, 0])
    just_below = difference(counts, allowed, significance=0.2 / np.sqrt(0.2 * 0.8 * 0.02) - 1e-6)
    assert just_below[0] > 0
    just_above = difference(counts, allowed, significance=0.2 / np.sqrt(0.2 * 0.8 * 0.02) + 1e-6)
    assert not bool(just_above.any())


def test_significance_of_noise_is_rarely_kept() -> None:
    """Both sides from one distribution: at z = 3 about 0.3 % of the tokens stay."""
    generator = np.random.default_rng(0)
    counts = generator.multinomial(200_000, np.full(2_000, 1 / 2_000), size=2)
    sides = torch.from_numpy(counts)
    kept = difference(
        TokenCounts(sides[0], sides[1], 1, 1),
        torch.ones(2_000, dtype=torch.bool),
        significance=3.0,
    )
    assert 0 < int((kept != 0).sum()) < 20


def test_smoothing_by_hand() -> None:
    """One added to each: (3, 2, 2, 1)/8 − (1, 3, 2, 2)/8."""
    signed = difference(worked(), ALL, smoothing=1.0)
    assert signed.tolist() == pytest.approx([0.25, -0.125, 0.0, -0.125])
    short = TokenCounts(torch.tensor([1, 0]), torch.tensor([50, 50]), 1, 1)
    both = torch.ones(2, dtype=torch.bool)
    assert difference(short, both)[0] == 0.5
    assert difference(short, both, smoothing=1.0)[0] == pytest.approx(2 / 3 - 0.5)


def test_no_preference_is_an_error() -> None:
    same = count_tokens([[0, 1]], [[1, 0]], 4)
    with pytest.raises(ValueError, match="equally often"):
        target(difference(same, ALL))
    noise = difference(worked(), ALL, significance=10.0)
    for transform in ("relu", "shift", "softmax", "absolute"):
        with pytest.raises(ValueError, match="no difference is significant"):
            target(noise, transform)
    with pytest.raises(ValueError, match="leaves no token with mass"):
        target(torch.tensor([-0.5, 0.0]))
    with pytest.raises(ValueError, match="transform is relu"):
        target(torch.tensor([-0.5, 0.5]), "cube")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "rejected", "side"),
    [([], [[1]], "chosen"), ([[1]], [[]], "rejected"), ([[3]], [[1]], "chosen")],
)
def test_an_empty_side_is_named(
    chosen: list[list[int]], rejected: list[list[int]], side: str
) -> None:
    counts = count_tokens(chosen, rejected, 4)
    allowed = allowed_tokens(4, [3])
    for smoothing in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"the {side} responses hold no token"):
            difference(counts, allowed, smoothing=smoothing)


def test_saved_and_loaded_are_the_same(tmp_path: Path) -> None:
    counts = worked()
    signed = difference(counts, ALL)
    settings = {"transform": "relu", "smoothing": 0.0}
    made = PreferenceDistribution(counts, ALL, signed, target(signed), settings)
    path = tmp_path / "cache" / "target.safetensors"
    preference.save(made, path)
    preference.save(made, path)
    assert [file.name for file in path.parent.iterdir()] == ["target.safetensors"]
    read = preference.load(path)
    assert torch.equal(read.counts.chosen, counts.chosen)
    assert torch.equal(read.counts.rejected, counts.rejected)
    assert read.counts.chosen_responses == 2
    assert torch.equal(read.allowed, ALL)
    assert torch.equal(read.difference, signed)
    assert torch.equal(read.target, made.target)
    assert read.settings == settings


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "target.safetensors"
    path.write_bytes(b"old")
    counts = worked()
    made = PreferenceDistribution(counts, ALL, counts.chosen, counts.chosen, {"bad": object()})
    with pytest.raises(TypeError):
        preference.save(made, path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.safetensors is not a readable preference"):
        preference.load(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, other)
    with pytest.raises(UserError, match="delete it"):
        preference.load(other)
    other.write_bytes(b"\x00" * 40)
    with pytest.raises(UserError, match="delete it"):
        preference.load(other)
