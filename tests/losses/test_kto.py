"""KTO by hand, its reference point, and what is put to other prompts."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plot_exp.config.losses import KTOConfig
from plot_exp.data.collate import collate_padded, describe_responses
from plot_exp.data.mismatched import Mismatch, mismatched, partners_of
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.losses.base import Totals
from plot_exp.losses.kto import KTO
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request, Scores
from plot_exp.training.mismatched import mismatched_log_ratio

from loss_scores import context, ranked, scores
from scoring_models import example, tiny_model

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])


def sigmoid(x: float) -> float:
    return math.exp(min(x, 0)) / (1 + math.exp(-abs(x)))


def labelled(*labels: bool) -> list[TokenisedExample]:
    return [example([3 + place], [[2]], desirable=(one,)) for place, one in enumerate(labels)]


def value(
    config: KTOConfig, log_ratios: list[float], items: list[TokenisedExample], z: float | None
) -> float:
    responses = describe_responses(items)
    totals = replace(
        Totals.of([responses]), mismatched=None if z is None else torch.tensor(z).double()
    )
    policy = scores([[ratio - 1.0] for ratio in log_ratios])
    reference = scores([[-1.0]] * len(log_ratios))
    return KTO(config, NOTHING)(policy, reference, responses, totals).loss.item()


def test_by_hand() -> None:
    """h = (1, −2), z = ½, β = 2, weights 3 and 5: 3(1 − σ(1)) and 5(1 − σ(5)), over two."""
    config = KTOConfig(beta=2.0, desirable_weight=3.0, undesirable_weight=5.0)
    expected = (3 * (1 - sigmoid(1)) + 5 * (1 - sigmoid(5))) / 2
    assert value(config, [1, -2], labelled(True, False), 0.5) == pytest.approx(expected, rel=1e-12)


def test_a_pair_or_a_ranking_is_one_desirable_and_the_rest_undesirable() -> None:
    pair = [example([3], [[2], [2], [2]])]
    apart = value(KTOConfig(), [1, -2, 4], labelled(True, False, False), 0.3)
    assert value(KTOConfig(), [1, -2, 4], pair, 0.3) == apart


@pytest.mark.parametrize("z", [None, 0.0, -3.0])
def test_the_reference_point_is_never_below_zero(z: float | None) -> None:
    expected = (1 - sigmoid(0.1) + 1 - sigmoid(0.2)) / 2
    found = value(KTOConfig(), [1, -2], labelled(True, False), z)
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_microbatch_of_one_side_counts_by_the_whole_batch() -> None:
    both = describe_responses(labelled(True, False))
    first, second = (describe_responses(labelled(one)) for one in (True, False))
    totals = replace(Totals.of([first, second]), mismatched=torch.tensor(0.2))
    term, reference = KTO(KTOConfig(), NOTHING), scores([[-1.0]])
    parts = [
        term(scores([[ratio]]), reference, part, totals).loss.item()
        for ratio, part in ((-0.5, first), (-3.0, second))
    ]
    whole = term(scores([[-0.5], [-3.0]]), scores([[-1.0], [-1.0]]), both, totals).loss.item()
    assert sum(parts) == pytest.approx(whole, rel=1e-12)


def test_gradient_against_finite_differences_with_the_point_held() -> None:
    responses = ranked((2, 1), (1, 3))
    reference = scores([[-1.0, -1.0], [-2.0], [-1.0], [-1.0, -2.0, -3.0]])
    totals = replace(Totals.of([responses]), mismatched=torch.tensor(0.4).double())
    term = KTO(KTOConfig(beta=0.7, undesirable_weight=2.0), NOTHING)

    def loss(token_logps: Tensor) -> Tensor:
        return term(reference.replace_tensors([token_logps]), reference, responses, totals).loss

    values = -3 * torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (values.requires_grad_(),))


def test_extreme_log_ratios_are_flat_and_finite() -> None:
    responses = describe_responses(labelled(True, True, False, False))
    policy = scores([[-1e6], [0.0], [-1e6], [0.0]]).leaves()
    reference = scores([[0.0], [-1e6], [0.0], [-1e6]])
    loss = KTO(KTOConfig(), NOTHING)(policy, reference, responses, Totals.of([responses])).loss
    (gradient,) = torch.autograd.grad(loss, [policy.token_logps])
    assert loss.item() == 0.5
    assert gradient.tolist() == [0.0] * 4


# Mismatched prompts and responses


def test_partners_of_different_prompts_go_round_in_one_circle() -> None:
    items = [example([prompt], [[2]]) for prompt in range(3, 10)]
    partners = dict(zip(range(3, 10), partners_of(items), strict=True))
    place, visited = 3, []
    for _ in items:
        visited.append(place)
        partner = partners[place]
        assert partner is not None
        place = partner.prompt_ids[0]
    assert place == 3
    assert sorted(visited) == list(range(3, 10))


@given(st.permutations(range(6)))
def test_the_order_of_the_batch_does_not_matter(order: list[int]) -> None:
    items = [example([1, place % 4], [[place, 2]]) for place in range(6)]
    found = partners_of(items)
    moved = partners_of([items[place] for place in order])
    assert moved == [found[place] for place in order]


def test_the_prompt_stays_and_the_responses_change() -> None:
    own = example([3, 4], [[5, 2]], desirable=(True,))
    other = example([6], [[7, 2], [8, 9, 2]], scores=(1.0, 0.0))
    found = mismatched(own, other, max_length=9)
    assert found.prompt_ids == (3, 4)
    assert found.response_ids == ((7, 2), (8, 9, 2))
    assert describe_responses([found]).pairs.tolist() == [[0, 1]]


def test_a_prompt_too_long_beside_its_new_response_keeps_its_first_and_last_tokens() -> None:
    own, other = example([1, 3, 4, 5], [[2]]), example([6], [[7, 8, 2]])
    assert mismatched(own, other, max_length=5).prompt_ids == (1, 5)
    assert mismatched(own, other, max_length=4).prompt_ids == (1,)
    assert mismatched(own, other, max_length=7).prompt_ids == (1, 3, 4, 5)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_any_batch_has_a_partner_for_each_prompt_or_none_at_all(prompts: list[int]) -> None:
    items = [example([1, prompt], [[2]]) for prompt in prompts]
    for own, partner in zip(items, partners_of(items), strict=True):
        assert (partner is None) == (len(set(prompts)) == 1)
        assert partner is None or partner.prompt_ids != own.prompt_ids


def test_the_divergence_is_the_mean_over_the_pairs_one_by_one() -> None:
    items = [
        example([5, 6], [[8, 9, 2], [10, 2]]),
        example([11], [[12, 2]], desirable=(False,)),
        example([16, 17], [[20, 2], [21, 2], [22, 23, 2]]),
    ]
    policy, reference = (Policy(tiny_model("qwen2", seed=seed).double()) for seed in (0, 1))

    def log_ratio(prompt: tuple[int, ...], response: tuple[int, ...]) -> float:
        found = []
        for model in (policy.model, reference.model):
            logps = torch.log_softmax(model(torch.tensor([[*prompt, *response]])).logits[0], -1)
            rows = logps[len(prompt) - 1 : -1]
            found.append(rows.gather(1, torch.tensor(response)[:, None]).sum().item())
        return found[0] - found[1]

    exchanged = [
        (own.prompt_ids, response)
        for own, other in zip(items, partners_of(items), strict=True)
        if other is not None
        for response in other.response_ids
    ]
    expected = sum(log_ratio(*pair) for pair in exchanged) / len(exchanged)

    for cut in ([3], [1, 2], [1, 1, 1]):
        batches, rest = [], items
        for size in cut:
            batches.append(collate_padded(rest[:size], 0))
            rest = rest[size:]
        found = mismatched_log_ratio(
            batches,
            Mismatch(partial(collate_padded, pad_id=0), max_length=64),
            partial(plainly, policy),
            partial(plainly, reference),
            policy.device,
        )
        assert found is not None
        assert found.item() == pytest.approx(expected, rel=1e-6)


def plainly(model: Policy, batch: object) -> Scores:
    return model(batch, Request())


def test_without_a_second_prompt_there_is_no_divergence() -> None:
    policy = Policy(tiny_model("qwen2"))
    batch = collate_padded([example([5], [[6, 2], [7, 2]])], 0)
    mismatch = Mismatch(partial(collate_padded, pad_id=0), max_length=64)
    score = partial(plainly, policy)
    assert mismatched_log_ratio([batch], mismatch, score, score, policy.device) is None
