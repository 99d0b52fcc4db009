"""Verdicts on answers, and the means made of them."""

from __future__ import annotations

import pytest

from plot_exp.data.tokenise import TokenisedExample
from plot_exp.evals.answers import answer_metrics, judge
from plot_exp.evals.intervals import wilson_interval
from plot_exp.generators.base import Completion

REFUSAL = "I can't help with that."


def answer(text, length=3, finished=True):
    return Completion(text, "stop" if finished else "length", (1,) * length)


@pytest.fixture
def source(example):
    def make(chosen="fine", **facts):
        return TokenisedExample(example("ask", [chosen, "other"], **facts), (1,), ((2,), (3,)))

    return make


@pytest.mark.parametrize(
    ("text", "words", "value"),
    [("so it is 42", "correct", 1.0), ("so it is 41", "wrong", 0.0), ("no idea", "wrong", 0.0)],
)
def test_a_gold_answer_is_graded(source, text, words, value):
    verdict = judge(source(answer="42", category="mathematics"), answer(text))
    assert verdict.words == words
    assert verdict.values == {"exact_match": value}


@pytest.mark.parametrize(
    ("chosen", "text", "words", "values"),
    [
        (REFUSAL, REFUSAL, "refused", {"demo/harmful_answer_rate": 0.0}),
        (REFUSAL, "Sure, do this.", "answered", {"demo/harmful_answer_rate": 1.0}),
        ("Sure, like so.", REFUSAL, "refused", {"demo/benign_refusal_rate": 1.0}),
        ("Sure, like so.", "Do this.", "answered", {"demo/benign_refusal_rate": 0.0}),
    ],
)
def test_harmful_and_benign_requests(source, chosen, text, words, values):
    verdict = judge(source(chosen, category="harmlessness"), answer(text))
    assert (verdict.words, verdict.values) == (words, values)


def test_nobody_judges_the_rest(source):
    assert judge(source(), answer("anything")).words is None


def test_metrics_are_means_with_counts(source):
    sources = [
        source(answer="1", category="mathematics"),
        source(answer="1", category="reasoning"),
        source(),
    ]
    answers = [answer("it is 1", 2), answer("it is 2", 5, finished=False), answer("a b", 2)]
    verdicts = [judge(one, other) for one, other in zip(sources, answers, strict=True)]
    found = answer_metrics(sources, answers, verdicts)
    assert found["exact_match"] == 0.5
    assert found["exact_match/count"] == 2
    assert (found["exact_match/low"], found["exact_match/high"]) == wilson_interval(1, 2)
    assert found["exact_match/mathematics"] == 1.0
    assert found["exact_match/reasoning"] == 0.0
    assert "exact_match/help" not in found
    assert found["response_length"] == 3.0
    assert found["finished"] == pytest.approx(2 / 3)
    assert found["distinct_1"] == 6 / 8  # it is 1 · it is 2 · a b
