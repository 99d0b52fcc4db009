"""The layouts that people's own files come in, and what a wrong row is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import sources
from plot_exp.data.examples import Message, PreferenceExample
from plot_exp.data.files import Row
from plot_exp.data.screening import EMPTY_PROMPT, EMPTY_RESPONSE, IDENTICAL, NOT_UNICODE
from plot_exp.data.sources.row_layouts import NO_SHARED_PROMPT, to_example
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def read(values: dict[str, Any]) -> PreferenceExample:
    return to_example(Row(values, "my.jsonl", 4, 6))


USER = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}
ASKED = (Message("user", "q"),)


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {
            "chosen": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}],
            "rejected": [USER, BAD],
            "prompt": None,
        },
        {"prompt": "q", "responses": ["good", "bad"]},
        {"prompt": "q", "responses": [BAD, GOOD], "scores": [-1, 2.5]},
    ],
)
def test_every_layout_of_a_pair_reads_alike(values: dict[str, Any]) -> None:
    example = read(values)
    assert example.prompt == ASKED
    assert example.responses == ("good", "bad")
    assert example.kind == "ranked"


def test_scores_order_the_responses_and_equal_scores_keep_their_order() -> None:
    example = read({"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 3, 1]})
    assert example.responses == ("b", "a", "c")
    assert example.scores == (3.0, 1.0, 1.0)


@pytest.mark.parametrize("label", [True, False, 1, 0])
def test_labelled_rows_are_unpaired(label: bool | int) -> None:
    example = read({"prompt": "q", "completion": "x", "label": label})
    assert example.kind == "unpaired"
    assert example.desirable == (bool(label),)


def test_a_completion_alone_is_a_demonstration_with_its_extras() -> None:
    example = read(
        {"prompt": "q", "completion": "7", "answer": 7, "category": "sums", "system": "Be brief."}
    )
    assert example.kind == "single"
    assert example.prompt == (Message("system", "Be brief."), *ASKED)
    assert (example.answer, example.category) == ("7", "sums")
    assert str(example.origin) == "my.jsonl, row 4"


def test_a_dialogue_string_is_not_guessed_at() -> None:
    text = "\n\nHuman: q\n\nAssistant: x"
    assert read({"prompt": text, "chosen": "a", "rejected": "b"}).prompt == (Message("user", text),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"prompt": "q", "rejected": "b"},
            r"lacks `chosen` \(its keys: prompt, rejected\); expected",
        ),
        ({"prompt": "q", "chosen": "b", "rejected": None}, "lacks `rejected`"),
        (
            {"text": "q"},
            r"lacks `chosen` and `rejected`, `responses`, or `completion`.*prompt/chosen",
        ),
        ({"responses": ["a", "b"]}, "lacks `prompt`"),
        ({"completion": "a"}, "lacks `prompt`"),
        ({"chosen": "a", "rejected": "b"}, "as text but no `prompt`.*hh_rlhf"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "no prompt"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "`prompt` must be text or a list"),
        ({"prompt": [USER, GOOD], "completion": "a"}, "ends in an assistant turn"),
        ({"prompt": "q", "chosen": 7, "rejected": "b"}, "`chosen` must be text or a list"),
        ({"prompt": "q", "chosen": [USER], "rejected": "b"}, "must end in an assistant turn"),
        ({"prompt": "x", "chosen": [USER, GOOD], "rejected": "b"}, "same messages as the prompt"),
        (
            {"prompt": [{"role": "bot", "content": "q"}], "completion": "a"},
            "message 0 has the role",
        ),
        ({"prompt": [{"role": "user"}], "completion": "a"}, "no text under `content`"),
        ({"prompt": "q", "responses": []}, "at least one response"),
        ({"prompt": "q", "responses": ["a"], "scores": [1, 2]}, "list of 1 finite numbers"),
        ({"prompt": "q", "responses": ["a"], "scores": [float("nan")]}, "finite numbers"),
        ({"prompt": "q", "responses": ["a"], "scores": [True]}, "finite numbers"),
        ({"prompt": "q", "responses": ["a"], "scores": [10**400]}, "finite numbers"),
        ({"prompt": "q", "completion": "a", "label": "yes"}, "`label` is 'yes'; expected true"),
        ({"prompt": "q", "completion": "a", "label": 0.5}, "`label` is 0.5"),
        ({"prompt": "q", "completion": "a", "category": ["x"]}, "`category` must be text"),
    ],
)
def test_a_wrong_row_is_told_where_and_what_was_expected(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(values)
    assert "my.jsonl, row 4 (line 6)" in str(caught.value)


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PAIRS = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(20)]


def test_useless_rows_are_dropped_by_reason(tmp_path: Path) -> None:
    rows = [
        *PAIRS,
        {"prompt": "a", "chosen": "x", "rejected": "x"},
        {"prompt": "a", "chosen": "x", "rejected": " "},
        {"prompt": "  ", "chosen": "x", "rejected": "y"},
        {"prompt": "a", "chosen": "x", "rejected": "\ud83d"},
        {"chosen": [USER, GOOD], "rejected": [{"role": "user", "content": "other"}, BAD]},
    ]
    tallies: list[Tally] = []
    config = DatasetConfig(name="jsonl", path=str(written(tmp_path, "a.jsonl", rows)))
    split = sources.read(config, tallies, cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (18, 2)
    assert tallies[0].kept == {"train": 18, "validation": 2}
    assert tallies[0].dropped == {
        IDENTICAL: 1,
        EMPTY_RESPONSE: 1,
        EMPTY_PROMPT: 1,
        NOT_UNICODE: 1,
        NO_SHARED_PROMPT: 1,
    }


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", [{"prompt": "a", "chosen": "x", "rejected": "x"}])
    with pytest.raises(UserError, match=r"No training example is left.*1 because chosen and rej"):
        sources.read(DatasetConfig(name="jsonl", path=str(path)), [], cache_dir=tmp_path)


def test_a_folder_gives_its_splits_or_all_its_files(tmp_path: Path) -> None:
    config = DatasetConfig(name="jsonl", path=str(tmp_path))
    with pytest.raises(UserError, match="holds no data"):
        sources.check(config)
    written(tmp_path, "one.jsonl", PAIRS[:10])
    written(tmp_path, "two.jsonl", PAIRS[10:])
    split = sources.read(config, [], cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (18, 2)
    written(tmp_path, "train.jsonl", PAIRS[:12])
    written(tmp_path, "validation.jsonl", PAIRS[12:])
    split = sources.read(config, [], cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (12, 8)


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs dataset\.path"):
        sources.check(DatasetConfig(name="jsonl"))
    path = str(written(tmp_path, "a.jsonl", PAIRS))
    with pytest.raises(UserError, match="has no subsets"):
        sources.check(DatasetConfig(name="jsonl", path=path, subset="x"))
    with pytest.raises(UserError, match="row 0 has rejected or labelled ones of its own"):
        sources.read(
            DatasetConfig(name="jsonl", path=path, rejected="corrupt"), [], cache_dir=tmp_path
        )


def test_solutions_with_answers_can_be_corrupted(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"{n} and 40?",
            "completion": f"{n} + 40 = {n + 40}. So {n + 40}.",
            "answer": n + 40,
        }
        for n in range(11, 31)
    ]
    path = str(written(tmp_path, "a.jsonl", [*rows, {"prompt": "z", "completion": "y"}]))
    tallies: list[Tally] = []
    config = DatasetConfig(name="jsonl", path=path, rejected="corrupt")
    split = sources.read(config, tallies, cache_dir=tmp_path)
    assert len(split.train) + len(split.validation) == 20
    assert sum(tallies[0].dropped.values()) == 1
    for example in split.train:
        wrong = example.responses[1].rpartition(" ")[2]
        # The sum and its repetition change together.
        assert example.responses[1].count(wrong.rstrip(".")) == 2
        assert wrong != f"{example.answer}."
