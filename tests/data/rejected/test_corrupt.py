"""Corrupted solutions are wrong at the end, consistent from the slip on, and alike in looks."""

from __future__ import annotations

import os
import random
import re
from fractions import Fraction
from pathlib import Path
from statistics import mean

import pytest

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import sources
from plot_exp.data.examples import Message, Origin, PreferenceExample, Split
from plot_exp.data.rejected import chain, corrupt
from plot_exp.data.rejected.calculator import evaluate, without_notes
from plot_exp.data.rejected.corrupt import corrupt_all
from plot_exp.data.rejected.numerals import find, slips, value, write
from plot_exp.data.rejected.textual import rewritten
from plot_exp.data.tally import Tally
from plot_exp.judges.answers import extract_strict, grade

CLIPS = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72"
)


def example(problem: str, solution: str, answer: str, dataset: str = "gsm8k") -> PreferenceExample:
    return PreferenceExample(
        (Message("user", problem),), (solution,), "c", dataset, Origin("f", 0), answer=answer
    )


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        ("48/2", Fraction(24)),
        ("50*.01", Fraction(1, 2)),
        ("20%*50", Fraction(10)),
        ("0.1+0.2", Fraction(3, 10)),
        ("-(3-05)*2", Fraction(4)),
        (r"\frac{1}{2}(4)(4)", Fraction(8)),
        (r"1,000 \times 2 – 5", Fraction(1995)),
        ("1/0", None),
        ("2**99", None),
        ("__import__('os')", None),
        ("x+1", None),
    ],
)
def test_arithmetic_is_exact_and_nothing_else_is_run(
    expression: str, number: Fraction | None
) -> None:
    assert evaluate(expression) == number


def test_notes_are_taken_out_of_the_text() -> None:
    assert without_notes("48/2 = <<48/2=24>>24") == "48/2 = 24"


@pytest.mark.parametrize(
    ("number", "like", "written"),
    [
        ("1300", "1,200", "1,300"),
        ("12.5", "12.50", "12.50"),
        ("12.25", "12.5", "12.25"),
        ("0.3", ".2", ".3"),
        ("13", "12", "13"),
        ("1/3", "2", None),
        ("0", "2", None),
    ],
)
def test_numbers_are_written_alike(number: str, like: str, written: str | None) -> None:
    assert write(Fraction(number), find(like)[0]) == written


def test_digits_that_latex_takes_singly_get_braces() -> None:
    first, second = find(r"\frac12")
    assert (first.numeral, second.numeral) == ("1", "2")
    assert write(Fraction(10), first) == "{10}"
    assert [place.numeral for place in find("[asy]draw(3)[/asy] x^23")] == ["2", "3"]


def test_slips_are_as_round_as_the_number_and_never_it() -> None:
    near = list(slips("900", random.Random(0)))
    assert value("900") not in near
    assert all(number > 0 for number in near)
    assert sum(number % 100 == 0 for number in near) >= 9


def test_a_slip_in_the_first_step_is_carried_to_the_end_by_hand_arithmetic() -> None:
    found = set(chain.slipped("48 clips, half as many.", CLIPS, random.Random(0)))
    assert (
        "Natalia sold 48/2 = <<48/2=25>>25 clips in May.\n"
        "Natalia sold 48+25 = <<48+25=73>>73 clips altogether in April and May.\n#### 73"
    ) in found
    assert all(extract_strict(text) != "72" for text in found)


def test_a_value_worked_out_afresh_keeps_its_own_number() -> None:
    solution = "2+2 = <<2+2=4>>4 cats. 1+3 = <<1+3=4>>4 dogs. 4 dogs cost 4*5 = <<4*5=20>>20"
    for text in chain.slipped("", solution, random.Random(0)):
        if not text.startswith("2+2 = <<2+2=4>>"):
            assert text.endswith("1+3 = <<1+3=4>>4 dogs. 4 dogs cost 4*5 = <<4*5=20>>20")


def test_rounded_steps_round_alike() -> None:
    solution = "6+4 = <<6+4=10>>10. 10/3 = <<10/3=3.33>>3.33"
    assert "6+4 = <<6+4=11>>11. 11/3 = <<11/3=3.67>>3.67" in set(
        chain.slipped("", solution, random.Random(0))
    )


def test_plain_equations_are_steps_as_well() -> None:
    solution = r"The factor is $3 \times 4 = 12$. Increased, it is $12+11 = \boxed{23}$."
    found = set(chain.slipped("", solution, random.Random(0)))
    assert r"The factor is $3 \times 4 = 14$. Increased, it is $14+11 = \boxed{25}$." in found


def test_without_steps_the_number_changes_from_its_arrival_on() -> None:
    solution = "With 7 we begin. Hence $x = 7$, that is $7$ in all: $\\boxed{7}$. [asy]dot(7)[/asy]"
    final = corrupt.final_answer(solution)
    assert final is not None
    for text in rewritten("Given 7?", solution, final, random.Random(0)):
        new = re.search(r"boxed\{(\d+)\}", text)
        assert new is not None
        assert text == (
            f"With 7 we begin. Hence $x = {new[1]}$, that is ${new[1]}$ in all: "
            f"$\\boxed{{{new[1]}}}$. [asy]dot(7)[/asy]"
        )


def test_what_cannot_be_corrupted_is_counted_by_reason() -> None:
    tally = Tally("x")
    examples = [
        example("q", r"so \boxed{\text{Evelyn}}", r"\text{Evelyn}", "math"),
        example("q", "so 5\n#### 5", "6"),
        PreferenceExample((Message("user", "q"),), ("5",), "c", "jsonl", Origin("f", 1)),
    ]
    assert corrupt_all(examples, 0, tally, {}) == []
    assert tally.dropped == {corrupt.NO_NUMBER: 1, corrupt.GOLD_NOT_RIGHT: 1, corrupt.NO_ANSWER: 1}


def test_a_number_that_stands_in_the_answer_alone_is_counted() -> None:
    tally = Tally("x")
    pairs = corrupt_all([example("q", r"Clearly $\boxed{5}$.", "5", "math")], 0, tally, {})
    assert len(pairs) == 1
    assert tally.changed == {corrupt.ANSWER_ONLY: 1}


def test_the_same_seed_gives_the_same_corruption_and_rows_are_independent() -> None:
    rows = [example(f"{n}?", f"{n}+7 = {n + 7}\n#### {n + 7}", str(n + 7)) for n in range(40)]
    once = corrupt_all(rows, 0, Tally("x"), {})
    assert corrupt_all(rows[::-1], 0, Tally("x"), {})[::-1] == once
    assert corrupt_all(rows, 1, Tally("x"), {}) != once


def real(*parts: str) -> str:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return str(Path(folder, *parts))


def corrupted(name: str, path: str, tmp_path: Path, **settings: int) -> tuple[Split, Tally]:
    tallies: list[Tally] = []
    config = DatasetConfig(name=name, path=path, rejected="corrupt", **settings)
    return sources.read(config, tallies, cache_dir=tmp_path), tallies[0]


def verify(split: Split, dataset: str) -> None:
    pairs = split.train + split.validation
    for pair in pairs:
        right, wrong = pair.responses
        assert grade(dataset, right, pair.answer or "")
        assert not grade(dataset, wrong, pair.answer or "")
        # Only numbers differ.
        assert re.sub(r"[\d.,{}]+", "0", right) == re.sub(r"[\d.,{}]+", "0", wrong)
    gaps = [len(pair.responses[1]) - len(pair.responses[0]) for pair in pairs]
    assert abs(mean(gaps)) < 0.5
    assert max(map(abs, gaps)) <= 60


@pytest.mark.slow
def test_nearly_all_of_gsm8k_can_be_corrupted(tmp_path: Path) -> None:
    split, tally = corrupted("gsm8k", real("gsm8k"), tmp_path)
    assert len(split.train) > 0.99 * 7473
    assert len(split.validation) > 0.99 * 1319
    assert tally.changed[corrupt.ANSWER_ONLY] < 0.01 * 8792
    verify(split, "gsm8k")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "count"), [(("MATH",), 595), (("math500", "test.jsonl"), 500)])
def test_most_of_math_can_be_corrupted(tmp_path: Path, path: tuple[str, ...], count: int) -> None:
    split, tally = corrupted("math", real(*path), tmp_path)
    assert len(split.train) + len(split.validation) > 0.95 * count
    assert set(tally.dropped) <= {corrupt.NO_NUMBER, corrupt.NOT_WRONG}
    assert tally.changed[corrupt.ANSWER_ONLY] < 0.6 * count
    verify(split, "math")


def test_a_sample_of_the_real_files_is_wrong_and_alike(tmp_path: Path) -> None:
    split, _ = corrupted("gsm8k", real("gsm8k"), tmp_path, limit=150, validation_limit=50)
    assert len(split.train) >= 145
    verify(split, "gsm8k")
