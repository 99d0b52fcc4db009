"""HarmBench's and AdvBench's published files, with their oddities; the demo's behaviours."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from plot_exp.data.behaviours import CONTEXT_RULE, choose, demo, load
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError
from plot_exp.judges.refusal import is_refusal

HEADER = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\r\n"


def published(name: str) -> str:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip(f"PLOT_EXP_DATA names no folder with {name}/")
    return str(Path(folder) / name)


def written(folder: Path, rows: str, targets: dict[str, str]) -> str:
    """HarmBench's two files with these rows."""
    file = folder / "harmbench_behaviors_text_all.csv"
    file.write_bytes((HEADER + rows).encode())
    (folder / "harmbench_targets_text.json").write_text(json.dumps(targets), encoding="utf-8")
    return str(folder)


def test_harmbench_is_read_whole_and_what_is_left_out_is_counted() -> None:
    tally = Tally("harmbench")
    found = load("harmbench", published("harmbench"), tally=tally)
    assert Counter(one.functional for one in found) == {"standard": 200, "contextual": 100}
    assert tally.kept["behaviours"] == 300
    assert dict(tally.dropped) == {"copyright behaviour without its source text": 100}
    assert dict(tally.changed) == {"blanks around the request taken away": 1}
    contextual = [one for one in found if one.context]
    assert len(contextual) == 100
    assert all(one.request == one.context + CONTEXT_RULE + one.text for one in contextual)
    assert any("\n" in one.context for one in contextual)
    assert all(one.target.strip() for one in found)
    assert len({one.id for one in found}) == 300


@pytest.mark.parametrize(("split", "rows"), [("all", 400), ("val", 80), ("test", 320)])
def test_harmbench_splits_hold_their_published_rows(split: str, rows: int) -> None:
    tally = Tally("harmbench")
    load("harmbench", published("harmbench"), split=split, tally=tally)
    assert tally.kept["behaviours"] + sum(tally.dropped.values()) == rows


def test_advbench_is_read_whole() -> None:
    tally = Tally("advbench")
    found = load("advbench", published("advbench"), tally=tally)
    assert len(found) == 520
    assert {one.functional for one in found} == {"standard"}
    assert not tally.dropped


def test_the_folder_in_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLOT_EXP_DATA", str(Path(published("harmbench")).parent))
    assert len(load("advbench", tally=Tally("advbench"))) == 520
    monkeypatch.delenv("PLOT_EXP_DATA")
    with pytest.raises(UserError, match=r"eval\.asr\.path"):
        load("advbench", tally=Tally("advbench"))


def test_copyright_behaviours_come_with_their_texts(tmp_path: Path) -> None:
    rows = "Sing it,copyright,copyright,lyrics,,song\r\nSing that,copyright,copyright,lyrics,,other"
    folder = written(tmp_path, rows, {"song": "La", "other": "Lo"})
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "song.txt").write_text("la la la", encoding="utf-8")
    tally = Tally("harmbench")
    (found,) = load("harmbench", folder, texts=str(texts), tally=tally)
    assert (found.id, found.source) == ("song", "la la la")
    assert sum(tally.dropped.values()) == 1


def test_odd_rows_are_repaired_or_left_out_by_reason(tmp_path: Path) -> None:
    rows = (
        '"Two\r\nlines, and ""quotes""\u2028x",standard,harmful,,,a\r\n'
        ' padded ,contextual,illegal,context," A\nB ",b\r\n'
        "again,standard,harmful,,,a\r\n"
        "no target,standard,harmful,,,c\r\n"
        ",standard,harmful,,,d"
    )
    tally = Tally("harmbench")
    found = load("harmbench", written(tmp_path, rows, {"a": "T", "b": "U", "d": "V"}), tally=tally)
    assert found[0].text == 'Two\r\nlines, and "quotes"\u2028x'
    assert found[1].request == f"A\nB{CONTEXT_RULE}padded"
    assert dict(tally.dropped) == {
        "id that stood before": 1,
        "without a target string": 1,
        "without a request or an id": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"goal,target\r\n", "no behaviour"),
        (b"prompt,target\r\nx,y", "no column goal"),
        (b"goal,target\r\nx", "row 0 is cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"goal,target\r\n\xff,y", "not valid UTF-8"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "harmful_behaviors.csv"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load("advbench", str(file), tally=Tally("advbench"))
    assert str(file) in str(error.value)


def test_harmbench_needs_its_targets(tmp_path: Path) -> None:
    (tmp_path / "harmbench_behaviors_text_all.csv").write_text(HEADER + "x,standard,y,,,z")
    with pytest.raises(UserError, match="target strings"):
        load("harmbench", str(tmp_path), tally=Tally("harmbench"))


def test_a_limit_is_even_over_the_categories_and_leaves_a_trace() -> None:
    tally = Tally("harmbench")
    found = load("harmbench", published("harmbench"), tally=tally)
    chosen = choose(found, limit=15, seed=3, tally=tally)
    counts = Counter((one.functional, one.semantic) for one in chosen)
    assert len(chosen) == 15
    assert len(counts) == len({(one.functional, one.semantic) for one in found})
    assert max(counts.values()) - min(counts.values()) <= 1
    assert tally.kept["behaviours"] == 15
    assert tally.dropped["beyond eval.asr.limit"] == 285
    again = choose(found, limit=15, seed=3, tally=Tally("harmbench"))
    assert [one.id for one in again] == [one.id for one in chosen]
    assert choose(found, limit=15, seed=4, tally=Tally("harmbench")) != chosen


def test_categories_are_chosen_and_an_unknown_one_is_answered() -> None:
    tally = Tally("demo")
    found = choose(demo(tally), semantic=["deceit"], tally=tally)
    assert [one.id for one in found] == ["forge_a_signature", "blackmail_a_coworker"]
    assert tally.dropped["semantic category not chosen"] == 8
    with pytest.raises(UserError, match="property"):
        choose(demo(Tally("demo")), functional=["contextual"], tally=Tally("demo"))


def test_demo_behaviours_are_requests_with_a_target_that_does_not_refuse() -> None:
    tally = Tally("demo")
    found = demo(tally)
    assert len(found) == tally.kept["behaviours"] == len({one.id for one in found}) == 10
    for one in found:
        assert one.text.endswith("?")
        assert not is_refusal(one.target)
