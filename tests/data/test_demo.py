"""The demo set: deterministic, balanced, right, and split by templates."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from plot_exp.data.demo import CATEGORIES, generate
from plot_exp.data.demo.coding import CIRCLES
from plot_exp.data.demo.dialogue import GREETINGS, OPENERS, REPLIES
from plot_exp.data.demo.generator import SUB_PREFERENCES
from plot_exp.data.demo.grammar import Draft, Phrases, SubPreference, in_a_circle
from plot_exp.data.examples import PreferenceExample, Split
from plot_exp.errors import UserError

SIZE = 3000


@pytest.fixture(scope="module", params=[0, 1, 2])
def split(request: pytest.FixtureRequest) -> Split:
    return generate(SIZE, request.param)


def everything(split: Split) -> list[PreferenceExample]:
    return split.train + split.validation


def question(example: PreferenceExample) -> str:
    return example.prompt[-1].content


def pattern(template: str) -> re.Pattern[str]:
    """Matches what the template may become, the first letter in either case."""
    parts = [re.escape(part) for part in re.split(r"\{\w+\}", template)]
    return re.compile("(?i:" + ".+".join(parts) + ")")


def telling(templates: Iterable[str]) -> list[str]:
    """Those with words of their own: a bare slot, or one behind a word, matches any sentence."""
    return [each for each in templates if len(re.sub(r"\{\w+\}", "", each)) > 9]


def test_same_seed_same_set_other_seed_other_set() -> None:
    assert generate(700, 3) == generate(700, 3)
    assert set(map(question, generate(700, 3).train)) != set(map(question, generate(700, 4).train))


def test_smaller_set_is_the_beginning_of_a_larger_one() -> None:
    small, large = generate(700, 0), generate(1400, 0)
    assert small.train == large.train[: len(small.train)]
    assert small.validation == [
        replace(example, origin=own.origin)
        for example, own in zip(large.validation, small.validation, strict=False)
    ]


def test_size_shares_and_rows(split: Split) -> None:
    assert len(split.train) == 2550
    assert len(split.validation) == 450
    assert [example.origin.row for example in everything(split)] == list(range(SIZE))
    for part in (split.train, split.validation):
        counts = Counter(example.category for example in part)
        assert set(counts) == set(CATEGORIES)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_no_prompt_and_no_pair_twice(split: Split) -> None:
    prompts = [example.prompt for example in everything(split)]
    assert len(set(prompts)) == len(prompts)
    held_out = {question(example) for example in split.validation}
    assert held_out.isdisjoint(map(question, split.train))


def test_a_set_beyond_the_grammar_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    one_draft = SubPreference("tiny", ("fact",), {}, lambda *_: Draft("question", "good", "bad"))
    monkeypatch.setattr("plot_exp.data.demo.generator.SUB_PREFERENCES", (one_draft,))
    with pytest.raises(UserError, match=r"dataset\.size .* tiny"):
        generate(100, 0)


def test_some_prompts_have_several_turns(split: Split) -> None:
    share = sum(len(example.prompt) == 3 for example in everything(split)) / SIZE
    assert 0.03 < share < 0.1
    for example in everything(split):
        roles = [message.role for message in example.prompt]
        assert roles in (["user"], ["user", "assistant", "user"])


def test_templates_may_not_stand_in_both_parts() -> None:
    with pytest.raises(ValueError, match="held-out"):
        Phrases(train=("a {x}", "b"), validation=("a {x}",))


@pytest.mark.parametrize("sub_preference", SUB_PREFERENCES, ids=lambda each: each.name)
def test_validation_texts_fit_no_training_template(
    sub_preference: SubPreference[object], split: Split
) -> None:
    """By the texts themselves: what a held-out template wrote no training template could."""
    prompts = sub_preference.phrases["prompts"]
    answers = [each for name, each in sub_preference.phrases.items() if name != "prompts"]
    held_out = [each for each in split.validation if each.category == sub_preference.name]
    openers = [*OPENERS.train, *OPENERS.validation]
    for example in held_out:
        text = question(example)
        bare = next((text[len(each) + 1 :] for each in openers if text.startswith(each)), text)
        assert any(pattern(each).fullmatch(bare) for each in prompts.validation), bare
        assert not any(pattern(each).fullmatch(bare) for each in telling(prompts.train)), bare
        for response in example.responses:
            unspoken = [template for each in answers for template in each.validation]
            assert any(pattern(each).fullmatch(response) for each in unspoken), response
            spoken = telling(template for each in answers for template in each.train)
            assert not any(pattern(each).fullmatch(response) for each in spoken), response


def test_turns_around_the_question_are_held_out_too(split: Split) -> None:
    for example in split.validation:
        if len(example.prompt) == 3:
            assert example.prompt[0].content in GREETINGS.validation
            assert example.prompt[1].content in REPLIES.validation
        assert not any(question(example).startswith(each) for each in OPENERS.train)


def test_neither_side_is_the_longer_one(split: Split) -> None:
    for category in CATEGORIES:
        longer = shorter = 0
        for example in everything(split):
            if example.category == category:
                chosen, rejected = map(len, example.responses)
                longer += chosen > rejected
                shorter += chosen < rejected
        assert 0.4 <= longer / (longer + shorter) <= 0.6, (category, longer, shorter)


def test_texts_are_short_and_whole(split: Split) -> None:
    for example in everything(split):
        for text in (question(example), *example.responses):
            assert "{" not in text
            assert "}" not in text
            assert text == text.strip()
            assert "  " not in text
        assert len(question(example).split()) <= 30
        assert max(len(response.split()) for response in example.responses) <= 25
        assert example.responses[0] != example.responses[1]


def test_mathematics_gold_is_right_and_rejected_is_wrong(split: Split) -> None:
    """The operands are read from the prompt: every question asks for a sum of two numbers."""
    seen = 0
    for example in everything(split):
        if example.category != "mathematics":
            assert example.answer is None
            continue
        left, right = map(int, re.findall(r"\d+", question(example)))
        chosen, rejected = (re.findall(r"\d+", each)[-1] for each in example.responses)
        assert example.answer == chosen == str(left + right)
        assert int(rejected) != left + right
        assert abs(int(rejected) - left - right) <= 2
        seen += 1
    assert seen == pytest.approx(SIZE / len(CATEGORIES), abs=2)


def test_reasoning_conclusions_follow_and_rejected_ones_do_not(split: Split) -> None:
    direction = {"rises": 1, "stays level": 0, "falls": -1}
    for example in everything(split):
        if example.category != "reasoning":
            continue
        rule = re.search(
            r"(the [\w ]+?) moves (with|against) (the [\w ]+?)(?=[.,]| (?:rises|falls|stays)|$)",
            question(example),
            re.IGNORECASE,
        )
        assert rule, question(example)
        effect, sense, cause = (each.lower() for each in rule.groups())
        moves = "|".join(direction)
        seen = re.search(f"{cause} ({moves})", question(example), re.IGNORECASE)
        assert seen, question(example)
        expected = direction[seen[1]] * (1 if sense == "with" else -1)
        for response, right in zip(example.responses, (True, False), strict=True):
            concluded = re.search(f"{effect} ({moves})", response, re.IGNORECASE)
            assert concluded, response
            assert (direction[concluded[1]] == expected) is right, example


# Each expression's own effect, worked by hand on an input where all of its circle differ.
EFFECTS: dict[str, tuple[object, object]] = {
    "max(x)": ([3, 1, 4], 4),
    "min(x)": ([3, 1, 4], 1),
    "sum(x)": ([3, 1, 4], 8),
    "len(x)": ([3, 1, 4], 3),
    "x.upper()": (" a B ", " A B "),
    "x.lower()": (" a B ", " a b "),
    "x.split()": (" a B ", ["a", "B"]),
    "x.strip()": (" a B ", "a B"),
    "abs(x)": (-1.6, 1.6),
    "round(x)": (-1.6, -2),
    "str(x)": (-1.6, "-1.6"),
    "sorted(x)": ([2, 3, 1, 2], [1, 2, 2, 3]),
    "reversed(x)": ([2, 3, 1, 2], [2, 1, 3, 2]),
    "set(x)": ([2, 3, 1, 2], [1, 2, 3]),
    "tuple(x)": ([2, 3, 1, 2], (2, 3, 1, 2)),
}


def effect(expression: str, x: object) -> object:
    value = eval(expression, {"x": x})
    return list(value) if isinstance(value, (set, type(reversed([])))) else value


def test_coding_expressions_do_what_they_are_listed_for_and_their_rivals_do_not() -> None:
    assert set(EFFECTS) == {expression for circle in CIRCLES for expression in circle}
    for circle in CIRCLES:
        for expression, rival in in_a_circle(tuple(circle)):
            x, expected = EFFECTS[expression]
            assert effect(expression, x) == expected
            assert effect(rival, x) != expected


def test_coding_answers_parse(split: Split) -> None:
    code = re.compile(
        r"(?:max|min|sum|len|abs|round|str|sorted|reversed|set|tuple)\(x\)|x\.\w+\(\)"
    )
    for example in everything(split):
        if example.category == "coding":
            for response in example.responses:
                found = code.search(response)
                assert found, response
                ast.parse(found[0])


@pytest.mark.parametrize("sub_preference", SUB_PREFERENCES, ids=lambda each: each.name)
def test_drafts_depend_on_the_generator_alone(sub_preference: SubPreference[object]) -> None:
    fact = sub_preference.facts[0]
    first = sub_preference.write(fact, "train", Random(5))
    assert first == sub_preference.write(fact, "train", Random(5))


def test_a_circle_gives_every_answer_once_as_wrong() -> None:
    assert in_a_circle("abc") == (("a", "b"), ("b", "c"), ("c", "a"))
