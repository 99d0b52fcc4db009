"""Rows that are a little off are kept and counted, not refused with the whole file."""

from __future__ import annotations

import json
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import sources
from plot_exp.data.sources.hh_rlhf import messages
from plot_exp.data.sources.jsonl import EQUAL_SCORES
from plot_exp.data.tally import Tally


def read(folder: Path, rows: list[dict]) -> tuple[list, Tally]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tallies: list[Tally] = []
    config = DatasetConfig(name="jsonl", path=str(file), validation_fraction=0.2)
    split = sources.read(config, tallies, cache_dir=folder)
    return [*split.train, *split.validation], tallies[0]


def test_a_prompt_repeated_with_other_white_space_is_still_the_prompt(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {n}?\n"}],
            "chosen": [
                {"role": "user", "content": f"What is {n}?"},
                {"role": "assistant", "content": "a number"},
            ],
            "rejected": "no idea",
        }
        for n in range(10)
    ]

    examples, _ = read(tmp_path, rows)

    assert len(examples) == 10
    assert examples[0].responses == ("a number", "no idea")


def test_equal_scores_are_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{n}", "responses": ["a", "b"], "scores": [1.0, 1.0 if n < 3 else 0.0]}
        for n in range(10)
    ]

    _, tally = read(tmp_path, rows)

    assert tally.changed[EQUAL_SCORES] == 3


def test_windows_line_ends_between_turns_are_line_ends() -> None:
    turns, joined = messages("\r\n\r\nHuman: Hi\r\n\r\nAssistant: Hello")

    assert [(turn.role, turn.content) for turn in turns] == [("user", "Hi"), ("assistant", "Hello")]
    assert not joined
