"""Answers are read and graded as the benchmarks' own graders do, on hand-made and on real rows."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from plot_exp.judges.answers import (
    equivalent,
    extract_flexible,
    extract_strict,
    grade,
    last_boxed,
    normalise_number,
)


def real(*parts: str) -> Path:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return Path(folder, *parts)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,000", "1000"),
        ("$5.00", "5"),
        ("-$1,200.50", "-1200.5"),
        ("$-3", "-3"),
        ("+7.", "7"),
        ("\u22124", "-4"),
        (".50", "0.5"),
        ("007", "7"),
        ("-0", "0"),
        ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
        ("1,00", None),
        ("12 apples", None),
        ("", None),
    ],
)
def test_a_number_has_one_plain_form(text: str, number: str | None) -> None:
    assert normalise_number(text) == number


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 3+4=7\n#### 7", "7", "7"),
        ("#### 1,234 \nor #### 9", "1234", "9"),
        ("The answer is $12.50.", None, "12.5"),
        ("12-5", None, "5"),
        ("it is -5", None, "-5"),
        ("1,000,000 or 1,0000", None, "0"),
        ("####\n8", None, "8"),
        ("#### Step 1\n2 and 3\n#### 5 apples", "5", "5"),
        ("#### \\$18.00", "18", "18"),
        ("#### $5.", "5", "5"),
        ("#### -7 (seven lost), 50%", "-7", "50"),
        ("it costs -\\$5", None, "-5"),
        (r"so $1{,}234{,}567$", None, "1234567"),
        (r"#### 10,\!000", "10000", "10000"),
        ("no number", None, None),
    ],
)
def test_strict_reads_behind_the_first_mark_and_flexible_the_last_number(
    text: str, strict: str | None, flexible: str | None
) -> None:
    assert extract_strict(text) == strict
    assert extract_flexible(text) == flexible


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed 5 apples", "5"),
        (r"\boxed{3} and \boxed{unclosed", "3"),
        (r"\fbox{x}", "x"),
        ("nothing", None),
    ],
)
def test_the_last_balanced_box_counts(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\dfrac12", r"\frac{1}{2}", True),
        (r"x^2+1", r"1+x^2", True),
        (r"\text{Evelyn}", "Evelyn", True),
        (r"(1,2)", r"(2,1)", False),
        (r"\frac{1}{2}", r"\frac{1}{3}", False),
        ("", "3", False),
        (r"\frac{", "3", False),
        ("2516_9", "2516_8", False),
        ("2516_{8}", "2516_8", True),
        (r"25\%", "25", True),
        ("25.0", r"25\%", True),
        (r"26\%", r"25\%", False),
        ("1 2", "12", False),
        (r"15\mbox{ cm}^3", r"15\mbox{ cm}^2", False),
        (r"15\text{ cm}^{2}", r"15\mbox{ cm}^2", True),
        (".0000673", ".0000672", False),
        ("0.50", ".5", True),
        (r"10,\!000", "10000", True),
        (r"1\ \frac{1}{2}", r"1\frac{1}{2}", True),
    ],
)
def test_expressions_are_compared_by_meaning(one: str, other: str, same: bool) -> None:
    assert equivalent(one, other) is same


def test_grading_works_outside_the_main_thread() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(equivalent(r"\frac{2}{4}", "0.5")))
    thread.start()
    thread.join(60)
    assert found == [True]


def test_math_needs_the_box_and_numbers_do_not() -> None:
    assert grade("gsm8k", "in all $1,000.", "1000")
    assert not grade("gsm8k", "1000 or 999", "1000")
    assert grade("math", r"so $\boxed{0.5}$", r"\frac{1}{2}")
    assert not grade("math", "so 0.5", r"\frac{1}{2}")
    assert not grade("jsonl", "the answer is x", "x+1")


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gold_answer_of_gsm8k_is_right(split: str) -> None:
    with real("gsm8k", f"{split}.jsonl").open(encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == {"train": 7473, "test": 1319}[split]
    for row in rows:
        gold = extract_strict(row["answer"])
        assert gold is not None
        assert gold == row["answer"].rpartition("####")[2].strip().replace(",", "")
        assert grade("gsm8k", row["answer"], gold)


def test_every_gold_answer_of_math_500_is_the_last_box_and_right() -> None:
    with real("math500", "test.jsonl").open(encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 500
    for row in rows:
        assert last_boxed(row["solution"]) == row["answer"].strip()
        assert grade("math", row["solution"], row["answer"])
