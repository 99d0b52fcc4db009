"""HH-RLHF's dialogues become chat messages, and each oddity of the real files is decided."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from pathlib import Path

import pytest

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import sources
from plot_exp.data.examples import Message, PreferenceExample
from plot_exp.data.files import Row
from plot_exp.data.overlap import overlap
from plot_exp.data.screening import EMPTY_RESPONSE, IDENTICAL
from plot_exp.data.sources import hh_rlhf
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

H, A = "\n\nHuman: ", "\n\nAssistant: "


def compared(chosen: str, rejected: str) -> tuple[PreferenceExample | None, Tally]:
    tally = Tally("hh")
    return hh_rlhf.compare(chosen, rejected, Row({}, "f", 0, 1), "c", tally), tally


def test_a_dialogue_becomes_messages_and_the_last_turn_the_response() -> None:
    start = f"{H}hi\n\nthere{A}yes?{H}go on"
    found, tally = compared(f"{start}{A} good ", f"{start}{A}bad")
    assert found is not None
    assert found.prompt == (
        Message("user", "hi\n\nthere"),
        Message("assistant", "yes?"),
        Message("user", "go on"),
    )
    assert found.responses == ("good", "bad")
    assert not tally.dropped
    assert not tally.changed


def test_role_names_inside_a_line_do_not_begin_a_turn() -> None:
    text = 'say "Human: hello"\nAssistant: is a name'
    found, _ = compared(f"{H}{text}{A}Human: no", f"{H}{text}{A}ok")
    assert found is not None
    assert found.prompt == (Message("user", text),)
    assert found.responses == ("Human: no", "ok")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (f"{H}q{A}x", f"{H}q{A}x", IDENTICAL),
        (f"{H}q{A}", f"{H}q{A}x", EMPTY_RESPONSE),
        (f"{H}q{A}x", f"{H}q{A} \n", EMPTY_RESPONSE),
        (f"{H}q{A}x{H}and", f"{H}q{A}y", hh_rlhf.ENDS_IN_HUMAN_TURN),
        (f"{H}q{A}x{H}r{A}z", f"{H}q{A}y{H}r{A}w", hh_rlhf.NO_SHARED_PROMPT),
        (f"{H}{A}x", f"{H}{A}y", hh_rlhf.EMPTY_TURN),
        ("hello", f"{H}q{A}y", hh_rlhf.NO_TURNS),
        (f"{A}x", f"{A}y", hh_rlhf.NO_TURNS),
        (f"System{H}q{A}x", f"{H}q{A}y", hh_rlhf.PREAMBLE),
    ],
)
def test_a_pair_that_cannot_be_compared_is_dropped_by_reason(
    chosen: str, rejected: str, reason: str
) -> None:
    found, tally = compared(chosen, rejected)
    assert found is None
    assert tally.dropped == {reason: 1}


def test_turns_of_one_role_in_a_row_are_joined() -> None:
    found, tally = compared(f"{H}q{A}x{A}more", f"{H}q{A}y")
    assert found is not None
    assert found.responses == ("x\n\nmore", "y")
    assert tally.changed == {hh_rlhf.JOINED: 1}


def test_a_response_that_begins_with_the_other_is_kept_and_counted() -> None:
    found, tally = compared(f"{H}q{A}x and y", f"{H}q{A}x")
    assert found is not None
    assert tally.changed == {hh_rlhf.PREFIX: 1}


def real() -> Path:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return Path(folder) / "hh-rlhf"


@pytest.mark.parametrize(
    ("subset", "rows", "dropped", "changed"),
    [
        (
            "harmless-base",
            2312,
            {EMPTY_RESPONSE: 4},
            # Nine rows with a role twice in a row; 5 prefix rows less the 4 empty ones.
            {hh_rlhf.JOINED: 9, hh_rlhf.PREFIX: 1},
        ),
        (
            "helpful-online",
            1137,
            {
                IDENTICAL: 2,
                EMPTY_RESPONSE: 3,
                hh_rlhf.ENDS_IN_HUMAN_TURN: 2,
                hh_rlhf.EMPTY_TURN: 1,
            },
            # 20 prefix rows less 3 empty ones and one that ends in a human turn.
            {hh_rlhf.PREFIX: 16},
        ),
        (
            "helpful-rejection-sampled",
            2749,
            {IDENTICAL: 32},
            {hh_rlhf.JOINED: 3, hh_rlhf.PREFIX: 7},
        ),
    ],
)
def test_the_published_files_are_treated_as_documented(
    tmp_path: Path, subset: str, rows: int, dropped: dict[str, int], changed: dict[str, int]
) -> None:
    tallies: list[Tally] = []
    config = DatasetConfig(name="hh_rlhf", path=str(real() / subset / "test.jsonl.gz"))
    split = sources.read(config, tallies, cache_dir=tmp_path)
    assert tallies[0].dropped == dropped
    assert tallies[0].changed == changed
    kept = split.train + split.validation
    assert len(kept) == rows - sum(dropped.values())
    assert tallies[0].kept == {"train": len(split.train), "validation": len(split.validation)}
    assert overlap(split) == 0
    assert {example.category for example in kept} == {subset}
    assert all(example.prompt[-1].role == "user" for example in kept)
    roles = [[message.role for message in example.prompt] for example in kept]
    assert all(one != other for turns in roles for one, other in itertools.pairwise(turns))


def test_multi_turn_dialogues_have_the_published_numbers_of_human_turns(tmp_path: Path) -> None:
    config = DatasetConfig(name="hh_rlhf", path=str(real() / "harmless-base"))
    split = sources.read(config, [], cache_dir=tmp_path)
    turns = [
        sum(message.role == "user" for message in example.prompt)
        for example in split.train + split.validation
    ]
    # The file holds 584, 590 and 122; row 86, with two, is dropped for its empty response.
    assert (turns.count(2), turns.count(3)) == (583, 590)
    assert sum(count >= 5 for count in turns) == 122


def test_all_subsets_of_a_folder_are_read_and_kept_apart(tmp_path: Path) -> None:
    split = sources.read(DatasetConfig(name="hh_rlhf", path=str(real())), [], cache_dir=tmp_path)
    assert {example.category for example in split.validation} == {
        "harmless-base",
        "helpful-online",
        "helpful-rejection-sampled",
    }
    assert overlap(split) == 0


def written(folder: Path, name: str, count: int, tag: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [
        {"chosen": f"{H}{tag}{index}{A}a", "rejected": f"{H}{tag}{index}{A}b"}
        for index in range(count)
    ]
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (folder / name).write_bytes(gzip.compress(text.encode()))


def test_published_splits_are_kept_and_missing_ones_cut(tmp_path: Path) -> None:
    written(tmp_path / "harmless-base", "train.jsonl.gz", 30, "train")
    written(tmp_path / "harmless-base", "test.jsonl.gz", 7, "test")
    written(tmp_path / "helpful-base", "test.jsonl.gz", 20, "alone")
    config = DatasetConfig(name="hh_rlhf", path=str(tmp_path))
    split = sources.read(config, [], cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (30 + 18, 7 + 2)
    one = config.model_copy(update={"subset": "harmless-base"})
    split = sources.read(one, [], cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (30, 7)
    assert all(len(e.responses) == 2 for e in split.train)
    alone = config.model_copy(update={"rejected": "none"})
    assert {e.kind for e in sources.read(alone, [], cache_dir=tmp_path).train} == {"single"}


def test_wrong_settings_are_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    written(tmp_path / "harmless-base", "test.jsonl.gz", 5, "x")
    path = str(tmp_path)
    for settings, message in [
        ({"path": path, "rejected": "corrupt"}, "rejected=corrupt does not fit"),
        ({"path": path, "subset": "harmles-base"}, "did you mean harmless-base"),
        ({"path": f"{path}/harmless-base", "subset": "helpful-base"}, "does not fit dataset.path"),
        ({"path": f"{path}/nope/deeper"}, "does not exist; the nearest folder"),
        ({"subset": "harmless"}, "is not in Anthropic/hh-rlhf"),
    ]:
        with pytest.raises(UserError, match=message):
            sources.check(DatasetConfig(name="hh_rlhf", **settings))


def test_a_git_lfs_pointer_is_named() -> None:
    config = DatasetConfig(name="hh_rlhf", path=str(real().parent / "lfs-pointer"))
    with pytest.raises(UserError, match=r"Git LFS pointer.*git lfs pull"):
        sources.check(config)


def test_a_folder_of_something_else_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no HH-RLHF data; expected"):
        sources.check(DatasetConfig(name="hh_rlhf", path=str(tmp_path)))
    (tmp_path / "test.jsonl").write_text('{"question": "q"}\n')
    with pytest.raises(UserError, match=r"row 0 \(line 1\) has no text under `chosen`.*question"):
        sources.read(DatasetConfig(name="hh_rlhf", path=str(tmp_path)), [], cache_dir=tmp_path)
