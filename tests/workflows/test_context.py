"""What terms know of the training data is counted from training responses, once."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.schema import Config
from plot_exp.data.tally import Tally
from plot_exp.data.tokenise import ChatTokeniser, TokenisedExample, tokenise
from plot_exp.models.policy import Policy, freeze
from plot_exp.workflows import context as contexts
from plot_exp.workflows.context import build_context, responses_by_side, signed_difference


@pytest.fixture
def build(saved_model, tmp_path):
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(saved_model))
    policy = freeze(Policy(AutoModelForCausalLM.from_pretrained(saved_model)))
    config = Config(loss={"dpo": {}}, cache_dir=str(tmp_path / "cache"))

    def make(examples):
        train = tokenise(examples, tokeniser, 128, Tally("toy"), "train")
        return build_context(config, policy, tokeniser, train), train, tokeniser, policy

    return make


def test_counts_are_those_of_the_training_responses(build, examples):
    context, train, _, _ = build(examples)
    counts = context.token_counts()
    for place, found in ((0, counts.chosen), (1, counts.rejected)):
        expected = Counter(token for item in train for token in item.response_ids[place])
        assert {token: int(found[token]) for token in expected} == dict(expected)
        assert int(found.sum()) == sum(expected.values())


def test_special_and_unused_tokens_carry_no_mass(build, examples):
    context, _, tokeniser, policy = build(examples)
    allowed = context.allowed_tokens()
    assert len(allowed) == policy.vocab_size == context.vocab_size == 416
    tokenizer = tokeniser.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    expected = [token < len(tokenizer) and token not in special for token in range(len(allowed))]
    assert allowed.tolist() == expected
    assert float(signed_difference(context)[~allowed].abs().sum()) == 0.0


def test_the_second_time_nothing_is_counted(build, examples, monkeypatch):
    first = build(examples)[0].token_counts()

    def fail(*_):
        raise AssertionError("counted again")

    monkeypatch.setattr(contexts, "count_tokens", fail)
    again = build(examples)[0].token_counts()
    assert torch.equal(first.chosen, again.chosen)
    assert torch.equal(first.rejected, again.rejected)
    with pytest.raises(AssertionError, match="counted again"):
        build(examples[1:])[0].token_counts()


def test_swapped_sides_are_other_data(build, example):
    one = build([example("a", ["hello", "there"])])[0].token_counts()
    other = build([example("a", ["there", "hello"])])[0].token_counts()
    assert torch.equal(one.chosen, other.rejected)
    assert not torch.equal(one.chosen, other.chosen)


def test_sides_of_rankings_demonstrations_and_labels(example):
    def item(responses, **facts):
        return TokenisedExample(
            example("a", ["x"] * len(responses), **facts), (1,), tuple((one,) for one in responses)
        )

    train = [item([2, 3, 4]), item([5]), item([6, 7], desirable=(False, True))]
    assert responses_by_side(train) == ([(2,), (5,), (7,)], [(3,), (4,), (6,)])


def test_embeddings_and_the_references_distribution(build, examples):
    context, train, _, policy = build(examples)
    weight = policy.model.get_input_embeddings().weight
    assert torch.equal(context.input_embedding(), weight.float())
    assert context.output_embedding().shape == (416, 32)
    rows = []
    for item in train:
        ids = torch.tensor([item.prompt_ids + item.response_ids[0]])
        with torch.no_grad():
            logits = policy.model(input_ids=ids).logits[0, len(item.prompt_ids) - 1 : -1]
        rows.append(logits.double().softmax(-1))
    expected = torch.cat(rows).mean(0)
    torch.testing.assert_close(context.reference_distribution(), expected, rtol=1e-4, atol=1e-8)
