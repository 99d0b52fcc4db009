"""GSM8K and MATH: gold answers are right, corrupted ones wrong; what was interrupted goes on."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path

import pytest

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.config.evals import GSM8KConfig, MathConfig
from plot_exp.errors import UserError
from plot_exp.evals import gsm8k, math
from plot_exp.evals.base import CannotRunError, Subject, Tools, Workspace
from plot_exp.evals.graded import NOT_IN_TIME
from plot_exp.evals.intervals import wilson_interval
from plot_exp.evals.problems import Problem, read_gsm8k, read_math
from plot_exp.generators.base import Completion

DATA = os.environ.get("PLOT_EXP_DATA")
published = pytest.mark.skipif(
    not DATA, reason="PLOT_EXP_DATA is unset: the published files are not at hand"
)


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path, 4, EndpointConfig(), list)


class Scripted:
    """Answers by a function of the last turn, or breaks off after some prompts."""

    name = "scripted"

    def __init__(self, answer, breaks_after=None):
        self.answer, self.breaks_after, self.asked = answer, breaks_after, []

    def __call__(self, prompts, sampling, *, bar, label, each, samples=1):
        rows = []
        for place, prompt in enumerate(prompts):
            if len(self.asked) == self.breaks_after:
                raise KeyboardInterrupt
            self.asked.append(prompt)
            text = prompt if isinstance(prompt, str) else prompt[-1].content
            rows.append([Completion(self.answer(text), ids=(1, 2, 3))])
            each(place, rows[-1])
        return rows


@published
def test_every_gold_answer_of_gsm8k_is_right_and_every_corrupted_one_wrong():
    rows = (Path(DATA) / "gsm8k/test.jsonl").read_text(encoding="utf-8").split("\n")
    solutions = [json.loads(row)["answer"] for row in rows if row]
    problems = read_gsm8k(GSM8KConfig(path=f"{DATA}/gsm8k")).test
    assert len(problems) == len(solutions) == 1319
    for problem, solution in zip(problems, solutions, strict=True):
        assert problem.solution == solution.strip()
        right, words = gsm8k.grade(problem, solution)
        assert (right, words) == ({"strict": 1.0, "flexible": 1.0}, "correct")
        head, _, number = solution.rpartition("#### ")
        plain = float(number.replace(",", ""))
        for wrong in (plain + 1, -plain if plain else 7, plain * 10 + 3, plain / 7 + 0.013):
            found, words = gsm8k.grade(problem, f"{head}#### {wrong:f}")
            assert (found, words) == ({"strict": 0.0, "flexible": 0.0}, "wrong"), solution
        assert gsm8k.grade(problem, "")[0] == {"strict": 0.0, "flexible": 0.0}
        without_marks = f"So the answer is {number}."
        assert gsm8k.grade(problem, without_marks)[0] == {"strict": 0.0, "flexible": 1.0}


@published
@pytest.mark.slow
def test_every_gold_answer_of_math_500_is_right_and_every_corrupted_one_wrong():
    problems = read_math(MathConfig(path=f"{DATA}/math500/test.jsonl"), None).test
    assert len(problems) == 500
    wrong = []
    for problem in problems:
        found, words = math.grade(problem, problem.solution, 10)
        assert (found, words) == ({"accuracy": 1.0, "boxed": 1.0}, "correct"), problem.origin
        assert math.grade(problem, f"It is {problem.answer}", 10)[1] == "wrong: no box"
        corrupted = corrupt(problem.answer)
        found, words = math.grade(problem, rf"so \boxed{{{corrupted}}}", 10)
        if found["accuracy"]:
            wrong.append((problem.answer, corrupted))
    assert wrong == []


def corrupt(answer):
    """Another answer of the same form: its first digit one more, or a name for a name."""
    if number := re.search(r"[0-9]", answer):
        digit = str((int(number[0]) + 1) % 10 or 1)
        return answer[: number.start()] + digit + answer[number.end() :]
    if letters := re.search(r"(?<!\\)\b[A-Za-z]+\b(?!\{)", answer):
        return answer[: letters.start()] + "Zoe" + answer[letters.end() :]
    return answer + " + 1"


@published
def test_math_is_read_with_subjects_and_levels_from_both_layouts():
    whole = read_math(MathConfig(path=f"{DATA}/MATH"), None).test
    assert len(whole) == 595
    chosen = read_math(MathConfig(path=f"{DATA}/math500/test.jsonl", limit=70), None).test
    assert len(chosen) == 70
    for problems in (whole, chosen):
        subjects = {problem.groups[0] for problem in problems}
        assert len(subjects) == 7
        assert "counting_and_probability" in subjects
        assert {problem.groups[1] for problem in problems} <= {f"level_{n}" for n in range(1, 6)}
    counts = [sum(one.groups[0] == subject for one in chosen) for subject in subjects]
    assert set(counts) == {10}
    algebra = read_math(MathConfig(path=f"{DATA}/MATH"), "algebra").test
    assert {problem.groups[0] for problem in algebra} == {"algebra"}
    with pytest.raises(UserError, match=r"eval.math.subset=botany"):
        read_math(MathConfig(path=f"{DATA}/MATH"), "botany")


@published
def test_shots_are_solved_training_problems(tools):
    chat = gsm8k.build(GSM8KConfig(path=f"{DATA}/gsm8k", limit=5, shots=3), tools)
    text = gsm8k.build(GSM8KConfig(path=f"{DATA}/gsm8k", limit=5, shots=3, form="text"), tools)
    asked = {problem.question for problem in chat.problems}
    for prompt in chat.prompts:
        assert [turn.role for turn in prompt] == ["user", "assistant"] * 3 + ["user"]
        assert prompt[:-1] == chat.prompts[0][:-1]
        assert "<<" not in prompt[1].content
        assert "####" in prompt[1].content
        assert not {turn.content for turn in prompt[:-1]} & asked
    for prompt, problem in zip(text.prompts, text.problems, strict=True):
        assert prompt.count("Question: ") == 4
        assert prompt.endswith(f"Question: {problem.question}\nAnswer:")
    assert text.sampling.stop == ("Question:",)
    with pytest.raises(CannotRunError, match="shots=3"):
        gsm8k.build(GSM8KConfig(path=f"{DATA}/gsm8k/test.jsonl", shots=3), tools)


@pytest.fixture
def toy(tmp_path, tools):
    rows = [{"question": f"{n} plus {n}?", "answer": f"It is so.\n#### {2 * n}"} for n in range(9)]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return gsm8k.build(GSM8KConfig(path=str(path)), tools)


def right_for_small(text):
    n = int(text.split()[0])
    return f"#### {2 * n}" if n < 3 else f"that makes {2 * n}" if n < 7 else "no idea"


def test_numbers_are_shares_with_counts_and_intervals(toy, tmp_path):
    outcome = toy.run(Subject(Scripted(right_for_small), "x"), Workspace(tmp_path / "w"))
    found = outcome.metrics
    assert found["gsm8k/strict"] == pytest.approx(3 / 9)
    assert found["gsm8k/flexible"] == pytest.approx(7 / 9)
    assert found["gsm8k/strict/count"] == 9
    assert (found["gsm8k/strict/low"], found["gsm8k/strict/high"]) == wilson_interval(3, 9)
    assert (found["gsm8k/finished"], found["gsm8k/response_length"]) == (1.0, 3.0)
    assert [row["verdict"] for row in outcome.samples] == (
        ["correct"] * 3 + ["correct by its last number only"] * 4 + ["wrong"] * 2
    )
    assert outcome.samples[0]["asked"] == "0 plus 0?"
    assert outcome.samples[0]["prompt"][-1]["content"].startswith("0 plus 0?\n\n")


def test_an_interrupted_benchmark_asks_only_for_what_is_missing(toy, tmp_path):
    breaking = Scripted(right_for_small, breaks_after=4)
    with pytest.raises(KeyboardInterrupt):
        toy.run(Subject(breaking, "x"), Workspace(tmp_path / "w"))
    rest = Scripted(right_for_small)
    outcome = toy.run(Subject(rest, "x"), Workspace(tmp_path / "w"))
    assert rest.asked == toy.prompts[4:]
    whole = toy.run(Subject(Scripted(right_for_small), "x"), Workspace(tmp_path / "other"))
    assert outcome == whole


def test_settings_tell_what_decides_the_numbers(toy, tools, tmp_path):
    path = str(tmp_path / "test.jsonl")
    same = gsm8k.build(GSM8KConfig(path=path), tools)
    assert same.settings == toy.settings
    for change in ({"limit": 3}, {"instruction": "?"}, {"form": "text"}, {"max_new_tokens": 5}):
        assert gsm8k.build(GSM8KConfig(path=path, **change), tools).settings != toy.settings


def test_data_that_are_not_there_say_so(tools, tmp_path, monkeypatch):
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    with pytest.raises(UserError, match=r"eval\.gsm8k\.path=.*does not exist"):
        gsm8k.build(GSM8KConfig(path=str(tmp_path / "none")), tools)

    def unreachable(*_, **__):
        raise UserError("The dataset x cannot be loaded from the hub; pass dataset.path=FILE.")

    monkeypatch.setattr("plot_exp.data.hub.load", unreachable)
    with pytest.raises(CannotRunError, match=r"eval\.gsm8k\.path=FILE"):
        gsm8k.build(GSM8KConfig(), tools)


def test_an_answer_that_cannot_be_compared_counts_as_wrong_and_is_told(tools, tmp_path):
    rows = [{"problem": "p", "level": "Level ?", "type": "Algebra", "solution": r"\boxed{3}"}]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = math.build(MathConfig(path=str(path), seconds=0.5), tools)
    slow = Scripted(lambda _: r"\boxed{9^{9^{9^9}}}")
    outcome = benchmark.run(Subject(slow, "x"), Workspace(tmp_path / "w"))
    assert outcome.metrics["math/accuracy"] == 0.0
    assert outcome.metrics["math/accuracy/level_unknown/count"] == 1
    assert outcome.samples[0]["verdict"] == NOT_IN_TIME
    assert any("could not be compared in time" in note for note in outcome.notes)


def test_the_last_box_counts():
    problem = Problem("q", "s", r"\frac{1}{2}", "o")
    grade = partial(math.grade, seconds=60)
    assert grade(problem, r"first \boxed{3}, no: \boxed{0.5}")[1] == "correct"
    assert grade(problem, r"first \boxed{0.5}, no: \boxed{3}")[1] == "wrong"
