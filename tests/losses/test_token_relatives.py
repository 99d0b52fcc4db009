"""TDPO, OTPO and EMO by hand, against formulas written from logits, and against POT."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plot_exp.config.losses import DPOConfig, EMOConfig, OTPOConfig, SFTConfig, TDPOConfig
from plot_exp.data.collate import describe_responses
from plot_exp.losses.base import Term
from plot_exp.losses.dpo import DPO
from plot_exp.losses.emo import EMO, SMALLEST, emo_loss
from plot_exp.losses.otpo import OTPO, token_weights
from plot_exp.losses.sft import SFT
from plot_exp.losses.tdpo import TDPO
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.ops.scores import Request, Scores
from plot_exp.ot.unbalanced import unbalanced_plan

from loss_scores import context, ranked, scores, totals
from scoring_models import VOCABULARY, example, tiny_model, toy_batch

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])
POLICY, REFERENCE = [[-1.0, -2.0], [-5.0]], [[-2.0, -2.0], [-4.0]]


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def loss(term: Term, policy: Scores, reference: Scores | None = None) -> Tensor:
    """On pairs whose responses have the scores' lengths."""
    lengths = policy.length.tolist()
    responses = ranked(*zip(lengths[::2], lengths[1::2], strict=True))
    return term(policy, reference, responses, totals(responses)).loss


# TDPO


@pytest.mark.parametrize(
    ("settings", "margin"),
    [({}, 2 + 0.5 * (0.4 - 0.9)), ({"variant": 1}, 2 - 0.5), ({"a": 2.0}, 2 - 1.0)],
)
def test_tdpo_by_hand(settings: dict[str, Any], margin: float) -> None:
    """Δ = 2; SeqKL 0.1 + 0.3 along the chosen response, 0.9 along the rejected one; β ½."""
    policy = scores(POLICY, tokens={"reference_kl": torch.tensor([0.1, 0.3, 0.9]).double()})

    found = loss(TDPO(TDPOConfig(beta=0.5, **settings), NOTHING), policy, scores(REFERENCE))

    assert found.item() == pytest.approx(softplus(-0.5 * margin), rel=1e-7)


def test_only_variant_1_has_a_gradient_through_the_chosen_divergence() -> None:
    for variant, shares in ((1, [1, 1, -1]), (2, [0, 0, -0.5])):
        leaf = torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64, requires_grad=True)
        policy = scores(POLICY, tokens={"reference_kl": leaf})
        term = TDPO(TDPOConfig(variant=variant), NOTHING)
        (gradient,) = torch.autograd.grad(loss(term, policy, scores(REFERENCE)), leaf)
        assert (gradient / gradient[2] * shares[2]).tolist() == pytest.approx(shares)
        assert gradient[2] > 0


@pytest.mark.parametrize("variant", [1, 2])
def test_tdpo_on_a_model_agrees_with_one_written_from_logits(variant: int) -> None:
    """Values and the gradients in every weight; the divergence from whole distributions."""
    policy, reference, batch, rows = two_models()
    states = reference(batch, Request(tokens=frozenset({"predicting_hidden"})))
    term = TDPO(TDPOConfig(beta=0.3, variant=variant, a=0.7), NOTHING)
    found = policy(batch, term.request, reference=reference.states(states))
    ours = term(found, states, batch.responses, totals(batch.responses)).loss
    ours_gradient = torch.autograd.grad(ours, policy.trainable())

    ratio, kl = [], []
    for prompt, response in rows:
        logps, ref_logps = (plain_logps(model, prompt, response) for model in (policy, reference))
        target = torch.tensor(response)[:, None]
        ratio.append((logps - ref_logps.detach()).gather(1, target).sum())
        kl.append(F.kl_div(logps, ref_logps.detach(), log_target=True, reduction="sum"))
    terms = []
    for w, bad in ((0, 1), (2, 3), (4, 5), (4, 6)):
        chosen_kl, a = (kl[w], 1.0) if variant == 1 else (kl[w].detach(), 0.7)
        terms.append(-F.logsigmoid(0.3 * (ratio[w] - ratio[bad] - a * (kl[bad] - chosen_kl))))
    plain = torch.stack(terms).mean()

    assert ours.item() == pytest.approx(plain.item(), rel=1e-9)
    plain_gradient = torch.autograd.grad(plain, policy.trainable())
    for one, other in zip(ours_gradient, plain_gradient, strict=True):
        # The architecture's norms run in fp32.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def two_models() -> tuple[Policy, Policy, Any, Any]:
    """A policy that has moved a little from its reference, and a batch of seven responses."""
    policy = Policy(tiny_model("qwen2").double().eval())
    reference = frozen_copy(policy)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
    return policy, reference, *toy_batch()


def plain_logps(policy: Policy, prompt: tuple[int, ...], response: tuple[int, ...]) -> Tensor:
    """[n, V] at the positions that predict the response."""
    logits = policy.model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
    return torch.log_softmax(logits[len(prompt) - 1 : -1], -1)


# OTPO


@pytest.mark.parametrize(("epsilon", "penalty"), [(0.1, 0.2), (1.0, 0.2), (0.05, 5.0)])
@pytest.mark.parametrize("shape", [(3, 5), (7, 2), (1, 1), (1, 6)])
def test_the_plan_against_pot(shape: tuple[int, int], epsilon: float, penalty: float) -> None:
    cost = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = np.ones(shape[0]), np.ones(shape[1])
    theirs = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost.numpy(), epsilon, penalty, stopThr=1e-13, numItermax=20_000
    )
    ours = unbalanced_plan(cost, epsilon, penalty)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


def test_the_plan_of_one_cell_by_hand() -> None:
    """min over p of cp + ε(p log p − p) + 2m(p log p − p): p = exp(−c/(ε + 2m))."""
    plan = unbalanced_plan(torch.tensor([[0.6]], dtype=torch.float64), 0.1, 0.2)
    assert plan.item() == pytest.approx(math.exp(-0.6 / 0.5), rel=1e-8)


def test_the_heavier_penalty_keeps_the_marginals() -> None:
    cost = torch.rand(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = unbalanced_plan(cost, 0.1, 50.0)
    torch.testing.assert_close(plan.sum(1), torch.ones(4).double(), rtol=2e-2, atol=0)


def test_weights_against_the_sources_own_recipe_with_pot() -> None:
    """Plan of masses one a token, cost over its maximum, divided by mass/min(n_w, n_l)."""
    generator = torch.Generator().manual_seed(3)
    chosen, rejected = (torch.randn(n, 8, generator=generator).double() for n in (5, 3))
    cost = np.linalg.norm(chosen.numpy()[:, None] - rejected.numpy()[None], axis=-1)
    plan = ot.unbalanced.sinkhorn_unbalanced(
        np.ones(5), np.ones(3), cost / cost.max(), 0.1, 0.2, stopThr=1e-13
    )
    scale = plan.sum() / 3

    weights = token_weights(chosen, rejected, 0.1, 0.2)

    np.testing.assert_allclose(weights[0].numpy(), plan.sum(1) / scale, rtol=1e-6)
    np.testing.assert_allclose(weights[1].numpy(), plan.sum(0) / scale, rtol=1e-6)
    assert weights[0].sum().item() == pytest.approx(3)
    assert weights[1].sum().item() == pytest.approx(3)


def with_states(rows: list[list[float]], states: Tensor) -> Scores:
    return scores(rows, tokens={"predicting_hidden": states})


def test_of_states_all_alike_otpo_weighs_the_longer_response_down() -> None:
    """Every cell the same: weight ½ for two tokens against one, 1 for that one. Log-ratios
    (1, 0) and −1: ½ + 1, against DPO's 2.
    """
    policy = with_states(POLICY, torch.ones(3, 4).double())
    found = loss(OTPO(OTPOConfig(beta=1.0), NOTHING), policy, scores(REFERENCE))
    assert found.item() == pytest.approx(softplus(-1.5), rel=1e-9)


def test_of_one_token_each_otpo_is_dpo() -> None:
    policy, reference = [[-1.0], [-5.0]], scores([[-2.0], [-4.0]])
    states = torch.tensor([[0.0, 1.0], [3.0, -1.0]]).double()
    found = loss(OTPO(OTPOConfig(beta=0.4), NOTHING), with_states(policy, states), reference)
    expected = loss(DPO(DPOConfig(beta=0.4), NOTHING), scores(policy), reference)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_token_without_a_counterpart_counts_less() -> None:
    chosen = torch.tensor([[0.0], [1.0], [10.0]]).double()
    weights, _ = token_weights(chosen, torch.tensor([[0.0], [1.0]]).double(), 0.1, 0.2)
    assert weights[2] < 0.2 * weights[0]


def test_the_hidden_states_get_no_gradient() -> None:
    states = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    policy = with_states(POLICY, states.requires_grad_())
    value = loss(
        OTPO(OTPOConfig(), NOTHING),
        policy.replace_tensors([policy.token_logps.requires_grad_(), states]),
        scores(REFERENCE),
    )
    first, second = torch.autograd.grad(value, [policy.token_logps, states], allow_unused=True)
    assert first.abs().sum() > 0
    assert second is None


# EMO


def test_emo_by_hand() -> None:
    """−log p = 1 at distance ½ and 2 at 4: factors 2 and ½, so ½(1 + 1) + ½(2 + 2)."""
    nll, distance = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0])
    assert emo_loss(nll, distance, None).tolist() == [1.0, 2.0]
    assert emo_loss(nll, distance, 1.0).tolist() == [0.75, 2.0]


def test_emo_is_the_mean_over_the_chosen_tokens() -> None:
    policy = scores(POLICY, tokens={"label_cost": torch.tensor([0.5, 4.0, 1.0]).double()})
    found = loss(EMO(EMOConfig(cap=1.0), NOTHING), policy)
    assert found.item() == pytest.approx((0.75 + 2.0) / 2, rel=1e-9)


def test_uncapped_the_value_of_emo_is_the_likelihoods_and_the_gradient_is_not() -> None:
    policy, _, batch, rows = two_models()
    vectors = torch.randn(VOCABULARY, 5, generator=torch.Generator().manual_seed(1)).double()
    facts = context(vectors, [1] * VOCABULARY, [1] * VOCABULARY)
    emo = EMO(EMOConfig(embedding="input"), facts)
    found = policy(batch, emo.request)
    value = emo(found, None, batch.responses, totals(batch.responses)).loss
    sft = SFT(SFTConfig(), facts)(found, None, batch.responses, totals(batch.responses)).loss
    assert value.item() == pytest.approx(sft.item(), rel=1e-9)

    unit, parts, count = F.normalize(vectors, dim=-1), [], 0
    for row in (0, 2, 4):
        logps = plain_logps(policy, *rows[row])
        labels = torch.tensor(rows[row][1])
        nll = -logps.gather(1, labels[:, None]).squeeze(1)
        distance = 1 - ((logps.exp() @ unit) * unit[labels]).sum(-1)
        parts.append((nll + (nll / distance).detach() * distance).sum() / 2)
        count += len(labels)
    plain = torch.stack(parts).sum() / count
    pairs = zip(
        torch.autograd.grad(value, policy.trainable(), retain_graph=True),
        torch.autograd.grad(plain, policy.trainable()),
        torch.autograd.grad(sft, policy.trainable()),
        strict=True,
    )
    differ = 0.0
    for one, other, of_sft in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        differ = max(differ, float((one - of_sft).abs().max()))
    assert differ > 1e-3


def test_a_certain_label_has_a_bounded_factor() -> None:
    nll, distance = torch.tensor([0.0, 3e-7]), torch.tensor([-6e-8, 0.0])
    assert emo_loss(nll, distance, None).isfinite().all()
    leaf = distance.requires_grad_()
    (gradient,) = torch.autograd.grad(emo_loss(nll, leaf, None).sum(), leaf)
    assert gradient.tolist() == pytest.approx([0.0, 3e-7 / SMALLEST / 2])


# All three


@pytest.mark.parametrize(
    ("term", "output"),
    [
        (TDPO(TDPOConfig(variant=1), NOTHING), "reference_kl"),
        (TDPO(TDPOConfig(), NOTHING), "reference_kl"),
        (OTPO(OTPOConfig(), NOTHING), "predicting_hidden"),
        (EMO(EMOConfig(), NOTHING), "label_cost"),
    ],
)
def test_gradient_in_the_log_probabilities_against_finite_differences(
    term: Term, output: Any
) -> None:
    """With everything that is detached held fixed."""
    generator = torch.Generator().manual_seed(0)
    fixed = torch.rand((6, 4) if output == "predicting_hidden" else 6, generator=generator)
    template = scores([[-1.0, -2.0], [-5.0], [-1.0], [-3.0, -1.0]], tokens={output: fixed.double()})
    reference = scores([[-2.0, -2.0], [-4.0], [-2.0], [-1.0, -1.0]])
    point = template.token_logps.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        loss(term, template.replace_tensors([point, fixed.double()]), reference), point
    )
    if isinstance(term, EMO):
        # The factor is detached: half the likelihood's gradient is all that is left here.
        expected = torch.tensor([-1.0, -1.0, 0.0, -1.0, 0.0, 0.0]).double() / 3 / 2
        torch.testing.assert_close(gradient, expected)
        return
    for place in range(6):
        moved = []
        for step in (1e-6, -1e-6):
            shifted = template.token_logps.clone()
            shifted[place] += step
            moved.append(
                loss(term, template.replace_tensors([shifted, fixed.double()]), reference).item()
            )
        assert gradient[place].item() == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("term", "output"),
    [
        (TDPO(TDPOConfig(), NOTHING), {"reference_kl": torch.ones(1)}),
        (OTPO(OTPOConfig(), NOTHING), {"predicting_hidden": torch.ones(1, 2)}),
    ],
)
def test_without_pairs_zero_with_zero_gradient(term: Term, output: Any) -> None:
    policy, responses = scores([[-1.0]], tokens=output).leaves(), ranked((1,))
    value = term(policy, policy.detach(), responses, totals(responses)).loss
    (gradient,) = torch.autograd.grad(value, [policy.token_logps])
    assert value.item() == 0
    assert gradient.tolist() == [0.0]


def test_emo_of_a_batch_without_a_chosen_response_is_zero_with_zero_gradient() -> None:
    responses = describe_responses([example([1], [[2]], desirable=(False,))])
    policy = scores([[-1.0]], tokens={"label_cost": torch.ones(1)}).leaves()
    value = EMO(EMOConfig(), NOTHING)(policy, None, responses, totals(responses)).loss
    gradients = torch.autograd.grad(value, policy.tensors())
    assert value.item() == 0
    assert not any(gradient.any() for gradient in gradients)
