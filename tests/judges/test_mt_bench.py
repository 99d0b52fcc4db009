"""Grades are read as the published grader reads them, and the judge sees the published prompt."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plot_exp.errors import UserError
from plot_exp.judges.mt_bench import NO_GRADE, OUT_OF_RANGE, SingleAnswerPrompts, read_grade


def real() -> Path:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return Path(folder, "mt_bench")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Good.\n\nRating: [[7]]", 7.0),
        ("Rating: [[7.5]]", 7.5),
        ("Rating: [[10]]", 10.0),
        ("Rating: [[1]]", 1.0),
        ("Rating: [[8.]]", 8.0),
        ("Rating: [[08]]", 8.0),
        ("Rating: [6]", 6.0),
        ("Rating: [6.5]", 6.5),
        ("see [1] of the answer; Rating: [[9]]", 9.0),
        ("**Rating: [[4]]**", 4.0),
        ("[[3]] and again [[3]]", 3.0),
        ("[[3]], or rather [[8]]", 3.0),
    ],
)
def test_a_readable_grade(text: str, value: float) -> None:
    found = read_grade(text)
    assert (found.value, found.why) == (value, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Rating: 7", NO_GRADE),
        ("Rating: [[seven]]", NO_GRADE),
        ("Rating: [[7/10]]", NO_GRADE),
        ("Rating: [[-3]]", NO_GRADE),
        ("Rating: [[rating]]", NO_GRADE),
        ("Rating: [[]]", NO_GRADE),
        ("Rating: [[7", NO_GRADE),
        ("", NO_GRADE),
        ("Rating: [[11]]", OUT_OF_RANGE),
        ("Rating: [[0]]", OUT_OF_RANGE),
        ("Rating: [[10.5]]", OUT_OF_RANGE),
        ("Rating: [[85]]", OUT_OF_RANGE),
    ],
)
def test_an_unreadable_grade_is_none_and_says_why(text: str, why: str) -> None:
    found = read_grade(text)
    assert (found.value, found.why) == (None, why)


def test_grades_that_differ_are_marked() -> None:
    assert read_grade("[[3]] [[8]]").several
    assert not read_grade("[[3]] [[3.0]]").several


def test_the_published_prompts_are_filled() -> None:
    prompts = SingleAnswerPrompts(real() / "judge_prompts.jsonl")
    system, user = prompts.messages(["Who?"], ["{question} says I"], None)
    assert system.content == "You are a helpful assistant."
    assert user.content.endswith(
        "[Question]\nWho?\n\n[The Start of Assistant's Answer]\n{question} says I\n"
        "[The End of Assistant's Answer]"
    )
    _, user = prompts.messages(["2+2?"], ["5"], ["4", "6"])
    assert "[The Start of Reference Answer]\n4\n[The End" in user.content
    system, user = prompts.messages(["Who?", "Why?"], ["I.", "So."], None)
    assert "second user question" in system.content
    asked = ["### User:\nWho?", "### Assistant A:\nI.", "### User:\nWhy?", "### Assistant A:\nSo."]
    places = [user.content.index(part) for part in asked]
    assert places == sorted(places)
    _, user = prompts.messages(["2+2?", "+2?"], ["5", "7"], ["4", "6"])
    assert "### Reference answer:\n4\n" in user.content
    assert "### Reference answer:\n6\n" in user.content
    assert "{" not in user.content


def test_a_file_without_a_prompt_or_with_an_unknown_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "judge_prompts.jsonl"
    names = ["single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"]
    rows = [{"name": name, "system_prompt": "", "prompt_template": "{answers}"} for name in names]
    path.write_text("\n".join(json.dumps(row) for row in rows[1:]))
    with pytest.raises(UserError, match="no judge prompt single-v1"):
        SingleAnswerPrompts(path)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(UserError, match=r"asks for \{answers\}; known are answer, answer_1"):
        SingleAnswerPrompts(path).messages(["a"], ["b"], None)
    path.write_text(json.dumps({"name": "single-v1"}))
    with pytest.raises(UserError, match=r"row 0 .*lacks"):
        SingleAnswerPrompts(path)
