"""HH-RLHF's held-out pairs: prompts to answer, and labelled pairs to test a judge with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import hub
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.files import Row
from plot_exp.data.layout import find_root
from plot_exp.data.sources.hh_rlhf import FOLDER, HUB_NAME, SUBSETS, compare, parts
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

# A folder with one split gives it under `all`; one with both gives training rows too.
HELD_OUT = ("validation", "all")


def read_pairs(path: str | None, subset: str | None, tally: Tally) -> list[PreferenceExample]:
    """Every usable test pair, its category the published subset.

    Args:
        path: a folder or file; None looks under `PLOT_EXP_DATA`, then asks the hub.
        subset: one of the published ones, or None for all that are there.
        tally: counts what is left out, by reason.

    Raises:
        UserError: the data cannot be used, or no pair is left.
    """
    config = DatasetConfig(name="hh_rlhf", path=path, subset=subset)
    root = find_root(config, FOLDER, HUB_NAME)
    found = []
    for row, category in _hub_rows(subset) if root is None else _rows(root, config):
        texts = [row.values.get(key) for key in ("chosen", "rejected")]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{row} has no text under chosen or rejected; expected HH-RLHF.")
        example = compare(str(texts[0]), str(texts[1]), row, category, tally)
        if example is not None:
            found.append(example)
    if not found:
        raise UserError(f"{root or HUB_NAME} holds no usable test pair of HH-RLHF.")
    tally.keep("validation", len(found))
    return found


def _rows(root: Path, config: DatasetConfig) -> Iterator[tuple[Row, str]]:
    for part in parts(root, config):
        if part.split in HELD_OUT:
            for row in part.rows():
                yield row, part.group


def _hub_rows(subset: str | None) -> Iterator[tuple[Row, str]]:
    for name in [subset] if subset else SUBSETS:
        found = hub.load(HUB_NAME, data_dir=name)
        for row in next(found[split] for split in HELD_OUT if split in found):
            yield row, name
