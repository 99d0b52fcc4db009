"""Verdicts of harm: what counts, what is unreadable, which prompt the classifier gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plot_exp.data.behaviours import Behaviour
from plot_exp.data.examples import Origin
from plot_exp.errors import UserError
from plot_exp.generators.base import Completion
from plot_exp.judges.harm import HarmVerdict, Question, RefusalJudge, read_yes_no
from plot_exp.judges.harm_classifier import ClassifierJudge, read_prompts
from plot_exp.judges.harm_endpoint import ModelJudge


def behaviour(context: str = "") -> Behaviour:
    functional = "contextual" if context else "standard"
    return Behaviour("b", "Do {it}", "Sure", functional, "x", Origin("toy", 0), context)


class Scripted:
    name = "scripted judge"

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers, self.asked, self.sampling = list(answers), [], None

    def __call__(self, prompts: Any, sampling: Any, **more: Any) -> list[list[Completion]]:
        self.asked, self.sampling = list(prompts), sampling
        found = [[Completion(answer)] for answer in self.answers]
        for place, row in enumerate(found):
            more["each"](place, row)
        return found


def silent(place: int, verdict: HarmVerdict) -> None:
    """Nobody is told."""


@pytest.mark.parametrize(
    ("text", "harmful", "readable"),
    [
        ("Yes", True, True),
        (" yes.", True, True),
        ("**Yes**, plainly", True, True),
        ("no", False, True),
        ("No, but yes in part", False, True),
        ("", False, False),
        ("maybe", False, False),
        ("yesterday", False, False),
    ],
)
def test_a_verdict_is_its_first_word_and_anything_else_counts_as_no(
    text: str, harmful: bool, readable: bool
) -> None:
    verdict = read_yes_no(text)
    assert (verdict.harmful, verdict.readable) == (harmful, readable)


def test_refusal_substrings_count_what_does_not_refuse_and_says_something() -> None:
    answers = ["Sure, first", "I’m sorry, but no", " \n", "The weather is fine"]
    told: dict[int, HarmVerdict] = {}
    judge = RefusalJudge()
    found = judge([Question(behaviour(), answer) for answer in answers], told.__setitem__)
    assert [verdict.harmful for verdict in found] == [True, False, False, True]
    assert list(told.values()) == found
    assert "loose" in judge.name


def test_the_classifier_gets_its_own_prompt_and_one_greedy_token(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    prompts = {
        "standard": "S {behavior} | {generation} [/INST]",
        "contextual": "C {context} | {behavior} | {generation} [/INST]",
    }
    file.write_text(json.dumps(prompts), encoding="utf-8")
    generator = Scripted(["yes", "No"])
    judge = ClassifierJudge(generator, read_prompts(str(file), ""), lambda text: text[:6])
    questions = [Question(behaviour(), "one {x} two"), Question(behaviour("the text"), "three")]
    found = judge(questions, silent)
    assert generator.asked == [
        "S Do {it} | one {x [/INST]",
        "C the text | Do {it} | three [/INST]",
    ]
    assert (generator.sampling.temperature, generator.sampling.max_new_tokens) == (0.0, 1)
    assert [verdict.harmful for verdict in found] == [True, False]


def test_prompts_may_lie_beside_the_classifier_and_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="LLAMA2_CLS_PROMPT"):
        read_prompts(None, str(tmp_path))
    file = tmp_path / "judge_prompts.json"
    good = {"standard": "{behavior}{generation}", "contextual": "{behavior}{generation}{context}"}
    file.write_text(json.dumps(good), encoding="utf-8")
    assert read_prompts(None, str(tmp_path)).standard == "{behavior}{generation}"
    file.write_text(json.dumps(good | {"contextual": "{behavior}"}), encoding="utf-8")
    with pytest.raises(UserError, match="contextual"):
        read_prompts(None, str(tmp_path))
    file.write_text(json.dumps(good | {"standard": "{behavior}{generation}{"}), encoding="utf-8")
    with pytest.raises(UserError, match="standard"):
        read_prompts(None, str(tmp_path))


def test_a_model_is_asked_about_request_context_and_answer() -> None:
    generator = Scripted(["no"])
    (verdict,) = ModelJudge(generator)([Question(behaviour("the text"), "my answer")], silent)
    said = generator.asked[0][0].content
    assert all(part in said for part in ("Do {it}", "the text", "my answer"))
    assert not verdict.harmful
    assert ModelJudge(generator).name == "scripted judge"
