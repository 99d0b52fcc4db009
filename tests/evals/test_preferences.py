"""Preference metrics by hand arithmetic, and scores that do not depend on how they are batched."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.data.loader import evaluation_batches
from plot_exp.data.tally import Tally
from plot_exp.data.tokenise import ChatTokeniser, TokenisedExample, tokenise
from plot_exp.evals.preferences import (
    RememberedReference,
    ScoredExample,
    preference_metrics,
    reward_quantiles,
    score_examples,
)
from plot_exp.models.policy import Policy, frozen_copy


@pytest.fixture
def scored(example):
    """`scored(policy, reference, lengths, **facts)` without a model."""

    def make(policy, reference, lengths, **facts):
        responses = tuple((1,) * length for length in lengths)
        source = TokenisedExample(example("a", ["x"] * len(lengths), **facts), (5,), responses)
        return ScoredExample(
            source, np.array(policy, float), np.array(reference, float), np.array(lengths)
        )

    return make


def test_a_pair(scored):
    # rewards: 0.5·(−4 − −6) = 1 and 0.5·(−9 − −8) = −0.5
    found = preference_metrics([scored([-4, -9], [-6, -8], [2, 3])], 0.5, intervals=False)
    expected = {
        "reward_chosen": 1.0,
        "reward_rejected": -0.5,
        "reward_margin": 1.5,
        "reward_accuracy": 1.0,
        "logp_accuracy/sum": 1.0,
        "logp_accuracy/mean": 1.0,  # −2 against −3
        "logps_chosen": -4.0,
        "logps_rejected": -9.0,
        "length_chosen": 2.0,
        "length_rejected": 3.0,
        "reward_margin/rejected_longer": 1.5,
        "reward_accuracy/rejected_longer": 1.0,
    }
    assert found == expected | {f"{key}/help": value for key, value in expected.items()}


def test_sum_and_mean_may_disagree(scored):
    found = preference_metrics([scored([-6, -5], [0, 0], [6, 1])], 1.0, intervals=False)
    assert found["logp_accuracy/sum"] == 0.0
    assert found["logp_accuracy/mean"] == 1.0


def test_ties_count_half(scored):
    items = [scored([-3, -4], [-3, -4], [1, 1]), scored([-3, -4], [-4, -4], [1, 1])]
    found = preference_metrics(items, 1.0, intervals=False)
    assert found["reward_accuracy"] == (0.5 + 1.0) / 2
    assert preference_metrics(items[:1], 1.0, intervals=False)["reward_accuracy"] == 0.5


def test_the_best_of_several_stands_against_every_other(scored):
    # rewards 1, 2, 1, −3: margins −1, 0, 4
    item = scored([1, 2, 1, -3], [0, 0, 0, 0], [2, 1, 2, 3])
    found = preference_metrics([item], 1.0, intervals=False)
    assert found["reward_margin"] == 1.0
    assert found["reward_accuracy"] == (0 + 0.5 + 1) / 3
    assert found["reward_rejected"] == 0.0
    assert found["reward_margin/chosen_longer"] == -1.0
    assert found["reward_margin/same_length"] == 0.0
    assert found["reward_margin/rejected_longer"] == 4.0
    assert found["length_rejected"] == 2.0


def test_an_example_counts_once_however_many_pairs_it_has(scored):
    items = [scored([0, 1, 1, 1], [0, 0, 0, 0], [1] * 4), scored([1, 0], [0, 0], [1, 1])]
    found = preference_metrics(items, 1.0)
    assert found["reward_accuracy"] == 0.5
    assert found["reward_accuracy/count"] == 2


def test_margins_by_the_longer_side_are_means_over_the_examples_that_have_one(scored):
    items = [
        scored([2, 0], [0, 0], [3, 1]),
        scored([4, 0], [0, 0], [2, 1]),
        scored([-1, 0], [0, 0], [1, 5]),
    ]
    found = preference_metrics(items, 1.0)
    assert found["reward_margin/chosen_longer"] == 3.0
    assert found["reward_margin/chosen_longer/count"] == 2
    assert found["reward_margin/rejected_longer"] == -1.0
    assert "reward_margin/same_length" not in found


def test_unpaired_labels_give_rewards_by_label_and_no_accuracy(scored):
    items = [
        scored([1.0], [0], [1], desirable=(True,)),
        scored([3.0], [0], [1], desirable=(True,)),
        scored([-1.0], [0], [1], desirable=(False,)),
    ]
    found = preference_metrics(items, 0.5, intervals=False)
    assert found["reward_chosen"] == 1.0
    assert found["reward_rejected"] == -0.5
    assert not [key for key in found if "accuracy" in key or "margin" in key]


def test_a_demonstration_has_no_accuracy(scored):
    found = preference_metrics([scored([-2], [-1], [4])], 1.0, intervals=False)
    assert set(found) == {
        "logps_chosen", "length_chosen", "logps_chosen/help", "length_chosen/help"
    }  # fmt: skip


def test_several_datasets_stand_apart(scored):
    right, wrong = ([1, 0], [0, 0], [1, 1]), ([0, 1], [0, 0], [1, 1])
    items = [
        scored(*right, dataset="one", category="help"),
        scored(*wrong, dataset="one", category="harm"),
        scored(*wrong, dataset="two", category="two"),
    ]
    found = preference_metrics(items, 1.0, intervals=False)
    groups = {
        key.removeprefix("reward_accuracy"): value
        for key, value in found.items()
        if key.startswith("reward_accuracy") and "same_length" not in key
    }
    third = pytest.approx(1 / 3)
    expected = {"": third, "/one": 0.5, "/one/help": 1.0, "/one/harm": 0.0, "/two": 0.0}
    assert groups == expected


def test_compared_numbers_carry_count_and_interval(scored):
    items = [scored([place % 3 - 1, 0], [0, 0], [1, 1]) for place in range(30)]
    found = preference_metrics(items, 1.0)
    for key in ("reward_accuracy", "reward_margin", "logp_accuracy/sum"):
        assert found[f"{key}/low"] < found[key] < found[f"{key}/high"]
        assert found[f"{key}/count"] == 30


@pytest.fixture
def parts(saved_model, examples):
    policy = Policy(AutoModelForCausalLM.from_pretrained(saved_model))
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(saved_model))
    return policy, tokenise(examples, tokeniser, 128, Tally("toy"), "validation")


def test_scores_do_not_depend_on_the_batches(parts):
    policy, items = parts
    found = {}
    for size in (1, 3):
        reference = RememberedReference(frozen_copy(policy))
        for item in score_examples(policy, reference, evaluation_batches(items, size, 0)):
            found.setdefault(item.source.example.origin.row, []).append(item)
    assert sorted(found) == [0, 1, 2, 3]
    for one, other in found.values():
        np.testing.assert_allclose(one.policy, other.policy, rtol=1e-5)
        np.testing.assert_array_equal(one.policy, one.reference)
        assert one.lengths.tolist() == [len(ids) for ids in one.source.response_ids]


def test_an_untrained_policy_ties_with_its_reference(parts):
    policy, items = parts
    reference = RememberedReference(frozen_copy(policy))
    scored = score_examples(policy, reference, evaluation_batches(items, 2, 0))
    found = preference_metrics(scored, 0.1)
    assert found["reward_accuracy"] == 0.5
    assert found["reward_margin"] == 0.0


def test_a_batch_is_scored_by_the_reference_once(parts):
    policy, items = parts
    calls = []
    frozen = frozen_copy(policy)
    frozen.register_forward_hook(lambda *_: calls.append(1))
    reference = RememberedReference(frozen)
    batches = list(evaluation_batches(items, 2, 0))
    first = score_examples(policy, reference, batches)
    again = score_examples(policy, reference, batches)
    assert len(calls) == len(batches)
    assert all((a.reference == b.reference).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_mode_as_it_was(parts, training):
    policy, items = parts
    policy.train(training)
    score_examples(
        policy, RememberedReference(frozen_copy(policy)), evaluation_batches(items, 2, 0)
    )
    assert policy.training is training


def test_quantiles_take_every_response_of_a_side_once_and_no_demonstration(scored):
    ranked = [scored([2 * i, -i, -i], [0, 0, 0], [1] * 3) for i in range(11)]
    found = reward_quantiles([*ranked, scored([99], [0], [1])], 0.5)
    assert found["quantile/chosen/10"] == 1.0
    assert found["quantile/chosen/50"] == 5.0
    assert found["quantile/rejected/50"] == -2.5
    assert len(found) == 10
    liked = scored([4.0], [0], [1], desirable=(True,))
    assert reward_quantiles([liked], 0.5)["quantile/chosen/90"] == 2.0
    assert len(reward_quantiles([liked], 0.5)) == 5
