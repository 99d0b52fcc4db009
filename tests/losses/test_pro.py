"""PRO against hand arithmetic and a formula written response by response."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plot_exp.config.losses import PROConfig
from plot_exp.data.collate import Responses, describe_responses
from plot_exp.losses.pro import PRO, ranking_loss
from plot_exp.ops.scores import Scores

from loss_scores import context, ranked, scores, totals
from scoring_models import example

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])


def scored(lengths: list[int], values: tuple[float, ...]) -> Responses:
    return describe_responses([example([1], [[2] * n for n in lengths], scores=values)])


def value(config: PROConfig, policy: Scores, responses: Responses) -> float:
    return PRO(config, NOTHING)(policy, None, responses, totals(responses)).loss.item()


def plainly(means: list[float], rewards: list[float] | None) -> float:
    """Σ_k logsumexp(s̄_k τ_kk, s̄_i τ_ki for i > k) − s̄_k τ_kk, one sum at a time."""
    total = 0.0
    for k in range(len(means) - 1):
        later = range(k + 1, len(means))
        tau = {i: 1.0 if rewards is None else rewards[k] - rewards[i] for i in later}
        own = means[k] * max(tau.values())
        terms = [own, *(means[i] * tau[i] for i in later)]
        top = max(terms)
        total += top + math.log(sum(math.exp(term - top) for term in terms)) - own
    return total


def test_a_pair_without_scores_by_hand() -> None:
    """s̄ = (−1.5, −2): −log σ(0.5). Likelihood: (2 − 1)²·3 = 3, times w = 0.05."""
    policy, responses = scores([[-1.0, -2.0], [-2.0]]), ranked((2, 1))

    ranking = math.log(1 + math.exp(-0.5))
    assert value(PROConfig(sft_weight=0), policy, responses) == pytest.approx(ranking, rel=1e-12)
    assert value(PROConfig(), policy, responses) == pytest.approx(ranking + 0.15, rel=1e-12)


def test_three_scored_responses_by_hand() -> None:
    """s̄ = (−1, −2, −3), r = (3, 2, 0). k = 0: τ = (1, 3), τ_00 = 3, terms −3, −2, −9, minus −3.
    k = 1: τ_12 = τ_11 = 2, terms −4, −6, minus −4. Likelihood (3 − 1)²·1·w = 4w.
    """
    policy, responses = scores([[-1.0], [-2.0], [-3.0]]), scored([1, 1, 1], (3.0, 2.0, 0.0))

    first = math.log(math.exp(-3) + math.exp(-2) + math.exp(-9)) + 3
    second = math.log(math.exp(-4) + math.exp(-6)) + 4
    found = value(PROConfig(sft_weight=0.1), policy, responses)
    assert found == pytest.approx(first + second + 0.4, rel=1e-12)


def test_scores_can_be_left_aside() -> None:
    policy = scores([[-1.0], [-2.0], [-3.0]])

    ignored = value(PROConfig(scores=False), policy, scored([1, 1, 1], (3.0, 2.0, 0.0)))

    assert ignored == pytest.approx(value(PROConfig(), policy, ranked((1, 1, 1))), rel=1e-12)


def test_a_tie_has_no_gradient() -> None:
    """τ = 0: the ranking part is log 2 wherever the policy stands."""
    responses = scored([1, 1], (1.0, 1.0))
    policy = scores([[-1.0], [-7.0]]).leaves()
    term = PRO(PROConfig(sft_weight=0), NOTHING)

    loss = term(policy, None, responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(loss, [policy.token_logps])

    assert loss.item() == pytest.approx(math.log(2), rel=1e-12)
    assert gradient.tolist() == [0.0, 0.0]


@given(
    st.lists(st.tuples(st.floats(-5000, 0), st.floats(-10, 10)), min_size=2, max_size=7),
    st.booleans(),
)
def test_any_ranking_agrees_with_the_plain_sum(
    items: list[tuple[float, float]], with_scores: bool
) -> None:
    means = [mean for mean, _ in items]
    rewards = sorted((round(reward, 1) for _, reward in items), reverse=True)
    given_scores = torch.tensor(
        [rewards if with_scores else [math.nan] * len(items)], dtype=torch.float64
    )

    found = ranking_loss(torch.tensor([means], dtype=torch.float64), given_scores).item()

    expected = plainly(means, rewards if with_scores else None)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-7)


def test_rankings_of_different_sizes_in_one_batch_are_averaged() -> None:
    """Sizes 2, 3, 1, 3, the second scored: the mean over the three that rank anything."""
    generator = torch.Generator().manual_seed(0)
    sizes, rewards = [2, 3, 1, 3], (2.0, 0.5, 0.0)
    items, lengths = [], []
    for place, size in enumerate(sizes):
        own = [1 + (place + rank) % 3 for rank in range(size)]
        lengths += own
        ids = [[2] * n for n in own]
        items.append(example([1], ids, scores=rewards if place == 1 else None))
    rows = [(-3 * torch.rand(n, generator=generator)).tolist() for n in lengths]
    responses = describe_responses(items)

    found = value(PROConfig(sft_weight=0.05), scores(rows), responses)

    expected, start = 0.0, 0
    for place, size in enumerate(sizes):
        own = rows[start : start + size]
        start += size
        if size > 1:
            means = [sum(row) / len(row) for row in own]
            expected += plainly(means, list(rewards) if place == 1 else None)
            expected += 0.05 * (size - 1) ** 2 * -sum(own[0])
    assert found == pytest.approx(expected / 3, rel=1e-6)


def test_gradient_against_finite_differences() -> None:
    responses = describe_responses(
        [
            example([1], [[2, 2], [2], [2]], scores=(2.0, 1.0, 1.0)),
            example([1], [[2], [2, 2]]),
        ]
    )
    generator = torch.Generator().manual_seed(1)
    template = scores([[-1.0, -1.0], [-1.0], [-1.0], [-1.0], [-1.0, -1.0]])

    def loss(token_logps: Tensor) -> Tensor:
        policy = template.replace_tensors([token_logps])
        return PRO(PROConfig(), NOTHING)(policy, None, responses, totals(responses)).loss

    values = -2 * torch.rand(7, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (values.requires_grad_(),))


def test_a_batch_without_rankings_is_zero_with_zero_gradient() -> None:
    policy, responses = scores([[-1.0], [-2.0]]).leaves(), ranked((1,), (1,))

    loss = PRO(PROConfig(), NOTHING)(policy, None, responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(loss, [policy.token_logps])

    assert loss.item() == 0
    assert gradient.tolist() == [0.0, 0.0]
