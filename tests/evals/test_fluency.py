"""Perplexity against transformers' own loss; distinct-n by hand."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.data.tally import Tally
from plot_exp.data.tokenise import ChatTokeniser, TokenisedExample, tokenise
from plot_exp.evals.fluency import distinct, perplexity
from plot_exp.models.policy import Policy, freeze


@pytest.mark.parametrize("batch_size", [1, 3])
def test_perplexity_is_exp_of_transformers_loss_over_all_tokens(saved_model, examples, batch_size):
    model = AutoModelForCausalLM.from_pretrained(saved_model).eval()
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(saved_model))
    items = [
        TokenisedExample(item.example, item.prompt_ids, item.response_ids[:1])
        for item in tokenise(examples, tokeniser, 128, Tally("toy"), "validation")
    ]
    total, tokens = 0.0, 0
    for item in items:
        (response,) = item.response_ids
        labels = [-100] * len(item.prompt_ids) + list(response)
        with torch.no_grad():
            loss = model(
                input_ids=torch.tensor([item.prompt_ids + response]), labels=torch.tensor([labels])
            ).loss
        total += float(loss) * len(response)
        tokens += len(response)
    found = perplexity(freeze(Policy(model)), items, batch_size, 0)
    assert found == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_without_tokens_there_is_no_perplexity(qwen_dir):
    policy = Policy(AutoModelForCausalLM.from_pretrained(qwen_dir))
    with pytest.raises(ValueError, match="at least one token"):
        perplexity(policy, [], 2, 0)


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b a b"], 1, 2 / 4),
        (["a b a b"], 2, 2 / 3),
        (["a b", "a b"], 2, 1 / 2),
        (["a b", "b a"], 2, 1.0),  # n-grams do not run across texts
        (["a", ""], 2, 0.0),
        ([], 1, 0.0),
    ],
)
def test_distinct(texts, n, expected):
    assert distinct(texts, n) == expected
