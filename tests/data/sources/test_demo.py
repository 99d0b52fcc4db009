"""The demo reader follows the dataset's section and counts what it kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import sources
from plot_exp.data.demo import CATEGORIES
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def test_size_seed_and_tally(tmp_path: Path) -> None:
    tallies: list[Tally] = []
    split = sources.read(DatasetConfig(size=700, split_seed=1), tallies, cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (595, 105)
    assert [tally.dataset for tally in tallies] == ["demo"]
    assert tallies[0].kept == {"train": 595, "validation": 105}
    assert not tallies[0].dropped
    assert not tallies[0].changed
    assert {example.dataset for example in split.train} == {"demo"}
    assert {example.origin.file for example in split.validation} == {"demo"}
    other = sources.read(DatasetConfig(size=700, split_seed=2), [], cache_dir=tmp_path)
    assert other != split


def test_limits(tmp_path: Path) -> None:
    config = DatasetConfig(size=700, limit=70, validation_limit=21)
    tallies: list[Tally] = []
    split = sources.read(config, tallies, cache_dir=tmp_path)
    assert tallies[0].kept == {"train": 70, "validation": 21}
    assert set(Counter(example.category for example in split.train)) == set(CATEGORIES)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"path": "my/file.jsonl"}, "dataset.path"),
        ({"subset": "easy"}, "dataset.subset"),
        ({"rejected": "corrupt"}, "dataset.rejected"),
    ],
)
def test_settings_without_meaning_are_refused(
    settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=named):
        sources.read(DatasetConfig(size=700, **settings), [], cache_dir=tmp_path)
