"""MT-Bench: two turns by category, graded one by one; an unreadable grade enters no mean."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from plot_exp.config.benchmarks import MTBenchConfig
from plot_exp.config.endpoint import EndpointConfig
from plot_exp.data.examples import Message
from plot_exp.errors import UserError
from plot_exp.evals.base import CannotRunError, Subject, Tools, Workspace
from plot_exp.evals.mt_bench import MTBench, build
from plot_exp.evals.mt_bench_questions import read_questions
from plot_exp.evals.mt_bench_scores import Graded, against_start, scores
from plot_exp.judges.mt_bench import Grade, read_grade

from scripted import Scripted

JUDGE = EndpointConfig(url="http://localhost:1/v1", model="judge")


def tools(tmp_path: Path, judge: EndpointConfig = JUDGE) -> Tools:
    return Tools(tmp_path, 4, judge, lambda: [])


def published(tmp_path: Path, judge: Scripted, **settings: object) -> MTBench:
    if not os.environ.get("PLOT_EXP_DATA"):
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    made = build(MTBenchConfig.model_validate(settings), tools(tmp_path))
    return replace(made, judge=judge)


def echo(prompt: Sequence[Message]) -> str:
    """Says how many turns it saw, and the end of the last."""
    return f"answer {len(prompt)}: {prompt[-1].content[-20:]}"


def test_the_published_questions_are_asked_at_their_temperatures(tmp_path: Path) -> None:
    judge, model = Scripted(lambda prompt: "Rating: [[5]]"), Scripted(echo)
    found = published(tmp_path, judge).run(Subject(model, "m"), Workspace(tmp_path / "w", seed=7))
    assert len(model.asked) == len(judge.asked) == 160
    assert found.metrics["mt_bench/score"] == 5.0
    assert found.metrics["mt_bench/score/count"] == 160
    assert found.metrics["mt_bench/humanities/count"] == 20
    assert found.metrics["mt_bench/humanities/turn_2/count"] == 10
    assert len(found.samples) == 160
    questions = {question.turns[0]: question for question in published(tmp_path, judge).questions}
    expected = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
    for prompt, sampling in model.asked:
        category = questions[prompt[0].content].category
        assert sampling.temperature == expected.get(category, 0.0)
        assert (sampling.seed, sampling.max_new_tokens) == (7, 1024)
    second = [prompt for prompt, _ in model.asked if len(prompt) > 1]
    assert len(second) == 80
    for user, own, _ in second:
        assert own == Message("assistant", f"answer 1: {user.content[-20:]}")
    assert {sampling.temperature for _, sampling in judge.asked} == {0.0}


def test_math_reasoning_and_coding_are_judged_beside_references(tmp_path: Path) -> None:
    judge = Scripted(lambda prompt: "[[5]]")
    bench = published(tmp_path, judge)
    bench.run(Subject(Scripted(echo), "m"), Workspace(tmp_path / "w"))
    shown = [prompt[1].content for prompt, _ in judge.asked]
    with_reference = [text for text in shown if "Reference Answer" in text]
    assert len(with_reference) == 60
    referenced = [question for question in bench.questions if question.reference]
    assert {question.id for question in referenced} == set(range(101, 131))
    for question in referenced:
        assert question.reference is not None
        assert any(question.reference[0] in text for text in with_reference)
        assert any(question.reference[1] in text for text in with_reference)


def test_unreadable_grades_are_counted_and_enter_no_mean(tmp_path: Path) -> None:
    texts = ["Rating: [[8]]", "no idea", "Rating: [[42]]", "[[2]] or [[4]]"]
    judge = Scripted(lambda prompt: texts[len(judge.asked) % 4])
    bench = published(tmp_path, judge, limit=8)
    found = bench.run(Subject(Scripted(echo), "m"), Workspace(tmp_path / "w"))
    assert found.metrics["mt_bench/score/count"] == 8
    assert found.metrics["mt_bench/score"] == pytest.approx(5.0)
    assert found.metrics["mt_bench/unreadable"] == 8
    assert found.metrics["mt_bench/several_grades"] == 4
    assert any(
        "8 of 16 grades could not be read (grade out of range: 4, no grade: 4)" in note
        for note in found.notes
    )
    assert {sample["verdict"] for sample in found.samples} == {
        "8",
        "2",
        "no grade",
        "grade out of range",
    }


def test_no_readable_grade_gives_no_number(tmp_path: Path) -> None:
    bench = published(tmp_path, Scripted(lambda prompt: "fine"), limit=2)
    found = bench.run(Subject(Scripted(echo), "m"), Workspace(tmp_path / "w"))
    assert not any(key.startswith("mt_bench/score") for key in found.metrics)
    assert found.metrics["mt_bench/unreadable"] == 4


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    judge = Scripted(lambda prompt: "Rating: [[6]]")
    bench = published(tmp_path, judge, limit=4)
    stopped = Scripted(echo, stops_after=6)
    with pytest.raises(KeyboardInterrupt):
        bench.run(Subject(stopped, "m"), Workspace(tmp_path / "w"))
    model = Scripted(echo)
    judge.stops_after = 3
    with pytest.raises(KeyboardInterrupt):
        bench.run(Subject(model, "m"), Workspace(tmp_path / "w"))
    assert len(model.asked) == 2
    judge.stops_after = None
    found = bench.run(Subject(model, "m"), Workspace(tmp_path / "w"))
    assert len(model.asked) == 2
    assert len(judge.asked) == 8
    whole = published(tmp_path, judge, limit=4)
    again = whole.run(Subject(Scripted(echo), "m"), Workspace(tmp_path / "other"))
    assert (again.metrics, again.samples) == (found.metrics, found.samples)


def test_settings_tell_what_changes_the_numbers(tmp_path: Path) -> None:
    judge = Scripted(echo)
    one = published(tmp_path, judge, limit=8).settings
    assert one == published(tmp_path, judge, limit=8).settings
    others = [
        published(tmp_path, judge, limit=16),
        published(tmp_path, judge, limit=8, max_new_tokens=5),
        published(tmp_path, Scripted(echo, "another"), limit=8),
    ]
    assert all(other.settings != one for other in others)
    assert json.loads(json.dumps(one)) == one


def test_categories_and_limits(tmp_path: Path) -> None:
    bench = published(tmp_path, Scripted(echo), categories=["stem", "math"], limit=6)
    categories = [question.category for question in bench.questions]
    assert sorted(categories) == ["math"] * 3 + ["stem"] * 3
    with pytest.raises(UserError, match="expected some of writing, roleplay"):
        published(tmp_path, Scripted(echo), categories=["maths"])


def test_without_judge_or_data_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("PLOT_EXP_DATA"):
        with pytest.raises(CannotRunError, match="MT-Bench needs a judge"):
            build(MTBenchConfig(), tools(tmp_path, EndpointConfig()))
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    with pytest.raises(CannotRunError, match="needs its published files"):
        build(MTBenchConfig(), tools(tmp_path))
    with pytest.raises(UserError, match="there is no such folder"):
        build(MTBenchConfig(path=str(tmp_path / "none")), tools(tmp_path))


def test_bad_files_are_named(tmp_path: Path) -> None:
    questions, references = tmp_path / "question.jsonl", tmp_path / "gpt-4.jsonl"
    good = {"question_id": 101, "category": "math", "turns": ["2+2?", "+2?"]}
    answer = {"question_id": 102, "choices": [{"index": 0, "turns": ["4", "6"]}]}
    questions.write_text(json.dumps(good))
    references.write_text(json.dumps(answer))
    with pytest.raises(UserError, match=r"no answer to question 101 \(math\)"):
        read_questions(questions, references)
    references.write_text(json.dumps(answer | {"question_id": 101}))
    assert read_questions(questions, references)[0].reference == ("4", "6")
    for change, words in [
        ({"turns": ["one"]}, "two texts under `turns`"),
        ({"question_id": "81"}, "no whole number under `question_id`"),
        ({"category": None}, "no text under `category`"),
    ]:
        questions.write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=words):
            read_questions(questions, references)
    questions.write_text(json.dumps(good) + "\n" + json.dumps(good))
    with pytest.raises(UserError, match="repeats question 101"):
        read_questions(questions, references)


def graded(question: int, turn: int, value: float | None, category: str = "stem") -> Graded:
    grade = Grade(value) if value is not None else read_grade("none")
    return Graded(question, category, turn, "four", grade)


def test_the_means_by_hand() -> None:
    found = scores(
        [
            graded(1, 1, 8.0),
            graded(1, 2, 4.0),
            graded(2, 1, 6.0),
            graded(2, 2, None),
            graded(3, 1, 9.0, "math"),
            graded(3, 2, 10.0, "math"),
        ]
    )
    assert found["score"] == pytest.approx((8 + 4 + 6 + 9 + 10) / 5)
    assert found["stem"] == pytest.approx(6.0)
    assert found["stem/turn_2"] == 4.0
    assert found["stem/turn_2/count"] == 1
    assert found["turn_1"] == pytest.approx(23 / 3)
    assert found["math"] == 9.5
    assert found["score/low"] <= found["score"] <= found["score/high"]
    # A question's two turns go together: of two questions there are three draws, not more.
    assert (found["stem/low"], found["stem/high"]) == (6.0, 6.0)
    assert "math/low" not in found
    assert found["length"] == 4


def test_a_model_is_compared_with_its_start_turn_by_turn() -> None:
    def row(question: int, turn: int, grade: float | None, response: str) -> dict[str, object]:
        return {"question": question, "turn": turn, "grade": grade, "response": response}

    before = [
        row(1, 1, 5.0, "aaaa"),
        row(1, 2, 5.0, "aaaa"),
        row(2, 1, None, "a"),
        row(2, 2, 7, "a"),
    ]
    after = [
        row(1, 1, 8.0, "bbbbbbbb"),
        row(1, 2, 5.0, "bbbb"),
        row(2, 1, 9, "b"),
        row(3, 1, 1, "b"),
    ]
    found = against_start(after, before)
    assert found["win_rate"] == 0.75
    assert found["win_rate/count"] == 2
    assert found["length_gap"] == 2.0
    assert found["margin/own_longer"] == 3.0
    assert found["matched_win_rate"] == 0.5
    assert against_start(after, []) == {}
