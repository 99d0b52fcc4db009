"""A mix follows its weights, repeats nothing and keeps its sources apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import sources
from plot_exp.data.sources import mix
from plot_exp.data.splits import OVERLAP_KEPT, OVERLAP_REMOVED
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def source(folder: Path, tag: str, count: int, **settings: Any) -> DatasetConfig:
    path = folder / f"{tag}.jsonl"
    rows = [{"prompt": f"{tag} {n}", "chosen": "good", "rejected": "bad"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DatasetConfig(name="jsonl", path=str(path), **settings)


def test_training_follows_the_weights_and_validation_is_whole(tmp_path: Path) -> None:
    config = DatasetConfig(
        name="mix",
        sources={"a": source(tmp_path, "a", 100, weight=3), "b": source(tmp_path, "b", 100)},
    )
    tallies: list[Tally] = []
    split = sources.read(config, tallies, cache_dir=tmp_path)
    # Of 90 and 90 training examples, 3 : 1 without repetition is 90 and 30.
    counts = {key: sum(e.dataset == key for e in split.train) for key in "ab"}
    assert counts == {"a": 90, "b": 30}
    assert {key: sum(e.dataset == key for e in split.validation) for key in "ab"} == {
        "a": 10,
        "b": 10,
    }
    assert [tally.dataset for tally in tallies] == ["a", "b"]
    assert tallies[1].kept == {"train": 30, "validation": 10}
    assert tallies[1].dropped == {mix.BY_WEIGHT: 60}
    assert not tallies[0].dropped
    again = sources.read(config, [], cache_dir=tmp_path)
    assert again == split


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.tuples(st.integers(1, 1000), st.floats(0.01, 100)),
        min_size=1,
    ),
    st.none() | st.integers(1, 500),
)
@example({"a": (1, 1.0), "b": (1, 0.5), "c": (2, 3.0)}, 3)
def test_shares_never_ask_for_more_than_is_there(
    given_sources: dict[str, tuple[int, float]], limit: int | None
) -> None:
    sizes = {key: size for key, (size, _) in given_sources.items()}
    weights = {key: weight for key, (_, weight) in given_sources.items()}
    counts = mix.shares(sizes, weights, limit)
    assert all(1 <= counts[key] <= sizes[key] for key in sizes)
    if limit is not None:
        assert sum(counts.values()) <= max(limit, len(sizes))
    else:
        # The source that limits the rest is used whole.
        assert any(counts[key] == sizes[key] for key in sizes)


@pytest.mark.parametrize("remove", [False, True])
def test_overlap_between_sources_is_seen(tmp_path: Path, remove: bool) -> None:
    rows = [{"prompt": f"p {n}", "chosen": "good", "rejected": "bad"} for n in range(10)]
    for name, train, validation in (("a", rows[:6], rows[6:8]), ("b", rows[6:], rows[:1])):
        folder = tmp_path / name
        folder.mkdir()
        for file, part in (("train", train), ("validation", validation)):
            text = "".join(json.dumps(row) + "\n" for row in part)
            (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
    config = DatasetConfig(
        name="mix",
        remove_overlap=remove,
        sources={n: DatasetConfig(name="jsonl", path=str(tmp_path / n)) for n in "ab"},
    )
    tallies: list[Tally] = []
    split = sources.read(config, tallies, cache_dir=tmp_path)
    a, b = tallies
    if remove:
        assert (a.dropped[OVERLAP_REMOVED], b.dropped[OVERLAP_REMOVED]) == (1, 2)
        held_out = {example.prompt for example in split.validation}
        assert not any(example.prompt in held_out for example in split.train)
    else:
        assert (a.changed[OVERLAP_KEPT], b.changed[OVERLAP_KEPT]) == (1, 2)


def test_a_mix_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    good = source(tmp_path, "a", 10)
    for settings, message in [
        ({}, "needs dataset.sources"),
        ({"sources": {"x": DatasetConfig(name="mix")}}, "a mix within a mix"),
        (
            {"sources": {"x": DatasetConfig(name="jsonl", path="/nope")}},
            r"sources\.x: .*does not ex",
        ),
        ({"sources": {"x": good}, "path": "/a"}, r"dataset\.path has no meaning"),
        ({"sources": {"x": good}, "rejected": "corrupt"}, r"dataset\.rejected has no meaning"),
    ]:
        with pytest.raises(UserError, match=message):
            sources.check(DatasetConfig(name="mix", **settings))


def test_a_mix_needs_a_model_where_one_of_its_sources_does(tmp_path: Path) -> None:
    plain = source(tmp_path, "a", 10)
    drawn = DatasetConfig(name="gsm8k", rejected="sampled")
    assert sources.needs_model(drawn)
    assert sources.needs_model(DatasetConfig(name="mix", sources={"a": plain, "b": drawn}))
    assert not sources.needs_model(DatasetConfig(name="mix", sources={"a": plain}))
