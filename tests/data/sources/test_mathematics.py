"""GSM8K and MATH in their published layouts: solutions, answers, subjects and splits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import layout, sources
from plot_exp.data.sources import gsm8k, math
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def real(*parts: str) -> str:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return str(Path(folder, *parts))


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


GSM = [
    {"question": f"q{n}?", "answer": f"It is {n}+1 = <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"}
    for n in range(20)
]


def test_notes_leave_the_response_and_the_final_line_stays(tmp_path: Path) -> None:
    rows = [{"question": "q\u2028?", "answer": "2*600 = $<<2*600=1200>>1,200\n#### 1,200"}, *GSM]
    path = lines(tmp_path / "train.jsonl", rows)
    config = DatasetConfig(name="gsm8k", path=str(path), rejected="none")
    split = sources.read(config, [], cache_dir=tmp_path)
    example = next(e for e in split.train + split.validation if e.origin.row == 0)
    assert example.prompt[0].content == "q\u2028?"
    assert example.responses == ("2*600 = $1,200\n#### 1,200",)
    assert (example.answer, example.category, example.kind) == ("1200", "mathematics", "single")


def test_gsm8k_rows_without_an_answer_or_reasoning_are_dropped_by_reason(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "no"}, {"question": "r", "answer": "#### 4"}, *GSM]
    tallies: list[Tally] = []
    config = DatasetConfig(name="gsm8k", path=str(lines(tmp_path / "a.jsonl", rows)))
    sources.read(config, tallies, cache_dir=tmp_path)
    assert tallies[0].dropped == {gsm8k.NO_ANSWER: 1, gsm8k.NO_REASONING: 1}


@pytest.mark.parametrize("layout", ["", "main", "grade_school_math/data"])
def test_gsm8k_layouts(tmp_path: Path, layout: str) -> None:
    lines(tmp_path / layout / "train.jsonl", GSM)
    lines(tmp_path / layout / "test.jsonl", GSM[:3])
    config = DatasetConfig(name="gsm8k", path=str(tmp_path), remove_overlap=True)
    split = sources.read(config, [], cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (17, 3)


def test_gsm8k_parquet_as_on_the_hub(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "main").mkdir()
    for name, rows in (("train", GSM), ("test", GSM[:3])):
        file = tmp_path / "main" / f"{name}-00000-of-00001.parquet"
        parquet.write_table(arrow.Table.from_pylist(rows), file)
    split = sources.read(DatasetConfig(name="gsm8k", path=str(tmp_path)), [], cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (20, 3)


def test_the_folder_in_the_environment_stands_in_for_the_published_data_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines(tmp_path / "gsm8k" / "train.jsonl", GSM)
    monkeypatch.setenv("PLOT_EXP_DATA", str(tmp_path))
    for hub_name in (None, "openai/gsm8k"):
        config = DatasetConfig(name="gsm8k", hub_name=hub_name)
        assert len(sources.read(config, [], cache_dir=tmp_path).train) == 18
    assert layout.find_root(DatasetConfig(hub_name="my/own"), "gsm8k", "openai/gsm8k") is None
    assert layout.find_root(DatasetConfig(), "absent", "openai/gsm8k") is None


def test_the_real_gsm8k_is_whole(tmp_path: Path) -> None:
    config = DatasetConfig(name="gsm8k", path=real("gsm8k"))
    tallies: list[Tally] = []
    split = sources.read(config, tallies, cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (7473, 1319)
    assert not tallies[0].dropped
    everything = split.train + split.validation
    assert not any("<<" in example.responses[0] for example in everything)
    # 79 + 14 answers with commas are plain numbers, 3 + 2 are negative.
    assert sum("," in e.responses[0].rpartition("####")[2] for e in everything) == 93
    assert not any("," in (example.answer or "") for example in everything)
    assert sum((example.answer or "").startswith("-") for example in everything) == 5
    # One row holds it twice; test_files.py has it as a bare character too.
    assert sum("\u2028" in e.prompt[0].content + e.responses[0] for e in split.train) == 1


def problem(folder: Path, number: int, **changes: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    row = {
        "problem": f"{folder.name} {number}?",
        "level": "Level 3",
        "type": "Counting & Probability",
        "solution": rf"First \boxed{{1}}, then $\boxed{{\frac{{{number}}}{{3}}}}$.",
        **changes,
    }
    (folder / f"{number}.json").write_text(json.dumps(row, indent=4), encoding="utf-8")


@pytest.mark.parametrize("below", ["", "train", "train/algebra", ".."])
def test_math_layouts(tmp_path: Path, below: str) -> None:
    root = tmp_path / "MATH"
    for number in range(12):
        problem(root / "train" / "algebra", number)
    config = DatasetConfig(name="math", path=str(root / below))
    split = sources.read(config, [], cache_dir=tmp_path)
    everything = split.train + split.validation
    assert len(everything) == 12
    assert {example.answer for example in everything} == {
        rf"\frac{{{number}}}{{3}}" for number in range(12)
    }
    assert {example.category for example in everything} == {"counting_and_probability"}


def test_math_keeps_both_published_splits_and_reads_one_subject(tmp_path: Path) -> None:
    for number in range(5):
        problem(tmp_path / "train" / "algebra", number, type="Algebra")
        problem(tmp_path / "train" / "geometry", number, type="Geometry")
    problem(tmp_path / "test" / "algebra", 9, type="Algebra")
    problem(tmp_path / "test" / "algebra", 10, type="Algebra", solution=r"\boxed{unclosed")
    tallies: list[Tally] = []
    config = DatasetConfig(name="math", path=str(tmp_path))
    split = sources.read(config, tallies, cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (10, 1)
    assert tallies[0].dropped == {math.NO_BOX: 1}
    one = config.model_copy(update={"subset": "algebra"})
    split = sources.read(one, [], cache_dir=tmp_path)
    assert (len(split.train), len(split.validation)) == (5, 1)


def test_the_real_math_files_are_whole(tmp_path: Path) -> None:
    for path, count in ((real("MATH"), 595), (real("math500", "test.jsonl"), 500)):
        tallies: list[Tally] = []
        config = DatasetConfig(name="math", path=path)
        split = sources.read(config, tallies, cache_dir=tmp_path)
        assert len(split.train) + len(split.validation) == count
        assert not tallies[0].dropped
        assert {e.category for e in split.train + split.validation} == set(math.SUBSETS)


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_a_folder_or_row_of_something_else_is_named(tmp_path: Path, name: str) -> None:
    config = DatasetConfig(name=name, path=str(tmp_path))
    with pytest.raises(UserError, match=r"holds no .* data; expected"):
        sources.check(config)
    lines(tmp_path / "test.jsonl", [{"text": "x"}])
    with pytest.raises(UserError, match=r"row 0 \(line 1\) has no text under .*its keys: text"):
        sources.read(config, [], cache_dir=tmp_path)
    with pytest.raises(UserError, match="is not in"):
        sources.check(config.model_copy(update={"subset": "algebraic"}))
