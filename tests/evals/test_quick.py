"""What `eval=quick` measures, from examples to numbers and rows."""

from __future__ import annotations

from collections import Counter

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.data.loader import evaluation_batches
from plot_exp.data.tally import Tally
from plot_exp.data.tokenise import ChatTokeniser, TokenisedExample, tokenise
from plot_exp.evals.fluency import perplexity
from plot_exp.evals.preferences import RememberedReference
from plot_exp.evals.quick import (
    evaluate_answers,
    evaluate_preferences,
    sample_rows,
    spread_over_categories,
)
from plot_exp.generators.base import Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.progress import silent


@pytest.fixture
def parts(qwen_dir, examples):
    policy = Policy(AutoModelForCausalLM.from_pretrained(qwen_dir))
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(qwen_dir))
    return policy, tokeniser, tokenise(examples, tokeniser, 128, Tally("toy"), "validation")


def test_preferences_are_counted_and_named(parts):
    policy, _, items = parts
    reference = RememberedReference(frozen_copy(policy))
    batches = list(evaluation_batches(items, 3, 0))
    found = evaluate_preferences(policy, reference, batches, 0.1, silent)
    assert found["val/count"] == 4
    assert found["val/reward_accuracy"] == 0.5
    assert found["val/reward_accuracy/help/count"] == 2
    assert all(key.startswith("val/") for key in found)


@pytest.mark.parametrize("max_prompt", [128, 9])
def test_perplexity_is_taken_behind_the_prompt_that_was_answered(parts, max_prompt):
    policy, tokeniser, items = parts
    generator = LocalGenerator(policy, tokeniser, batch_size=2, max_prompt=max_prompt)
    reference = frozen_copy(policy)
    found = evaluate_answers(
        policy, reference, items, generator, Sampling(max_new_tokens=6), silent
    )
    answered = [
        TokenisedExample(item.example, generator.encode(item.example.prompt), (answer.ids,))
        for item, answer in zip(found.sources, found.answers, strict=True)
    ]
    assert all(len(item.prompt_ids) <= max_prompt for item in answered)
    expected = perplexity(reference, answered, 1, 0)
    assert found.metrics["eval/perplexity_under_reference"] == pytest.approx(expected, rel=1e-5)


def test_prompts_are_spread_over_categories(example):
    items = [
        TokenisedExample(example("a", ["x"], row, category=category), (1,), ((2,),))
        for row, category in enumerate(["a"] * 50 + ["b"] * 10 + ["c"] * 2)
    ]
    chosen = spread_over_categories(items, 12)
    assert Counter(item.example.category for item in chosen) == {"a": 5, "b": 5, "c": 2}
    assert spread_over_categories(items, 12) == chosen
    assert len(spread_over_categories(items, 100)) == len(items)
    assert spread_over_categories(items, 0) == []


def test_sample_rows_hold_prompt_responses_and_both_answers(parts):
    policy, tokeniser, items = parts
    generator = LocalGenerator(policy, tokeniser, batch_size=2, max_prompt=64)
    found = evaluate_answers(
        policy, frozen_copy(policy), items, generator, Sampling(max_new_tokens=4), silent
    )
    rows = sample_rows(found, found)
    assert [row["prompt"] for row in rows] == [
        [{"role": turn.role, "content": turn.content} for turn in item.example.prompt]
        for item in items
    ]
    for row, item, answer in zip(rows, items, found.answers, strict=True):
        assert (row["chosen"], row["rejected"]) == item.example.responses
        assert row["before"] == row["after"] == answer.text
