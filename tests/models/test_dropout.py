"""Dropout by token: the same elements whatever stands beside, and otherwise plain dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from plot_exp.data.collate import collate_padded
from plot_exp.models.dropout import TokenDropout, keep_mask, set_dropout, use_token_keys
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

from scoring_models import ARCHITECTURES, tiny_model, toy_examples


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_keeps_the_share_that_it_should_without_a_pattern(probability: float) -> None:
    keys = torch.arange(400 * 500).view(400, 500)

    kept = keep_mask(keys, probability).double()

    assert kept.mean() == pytest.approx(1 - probability, abs=5e-3)
    for axis in (0, 1):
        assert kept.mean(axis).std() < 3 * (probability * (1 - probability) / 400) ** 0.5
    neighbours = torch.corrcoef(torch.stack([kept[:, :-1].flatten(), kept[:, 1:].flatten()]))
    assert abs(neighbours[0, 1]) < 0.02


def test_the_mean_is_kept_and_the_gradient_is_the_masks() -> None:
    use_token_keys(torch.arange(50 * 20).view(50, 20), seed=3)
    hidden = torch.ones(50, 20, 32, requires_grad=True)
    module = TokenDropout(0.25, layer=1)

    dropped = module(hidden)

    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    dropped.sum().backward()
    assert torch.equal(hidden.grad, dropped.detach())
    assert torch.equal(module.eval()(hidden), hidden)


def test_seeds_and_layers_draw_masks_of_their_own() -> None:
    keys, hidden = torch.arange(60).view(3, 20), torch.ones(3, 20, 16)
    masks = []
    for seed, layer in ((0, 0), (0, 1), (1, 0)):
        use_token_keys(keys, seed)
        masks.append(TokenDropout(0.5, layer)(hidden) > 0)

    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert 0.4 < (masks[one] == masks[other]).double().mean() < 0.6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_response_scores_the_same_alone_and_in_a_batch(architecture: str) -> None:
    model = tiny_model(architecture).double()
    policy = Policy(model)
    set_dropout(policy, 0.2)
    policy.train()
    examples = toy_examples()

    together = policy(collate_padded(examples, 0), Request(), dropout_seed=5).sums()
    alone = [
        policy(collate_padded([item], 0), Request(), dropout_seed=5).sums() for item in examples
    ]
    again = policy(collate_padded(examples, 0), Request(), dropout_seed=6).sums()

    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    assert (together - again).abs().min() > 1e-6


def test_without_keys_or_without_training_it_is_the_model_as_it_was() -> None:
    model = tiny_model("qwen2").double()
    batch = collate_padded(toy_examples(), 0)
    plain = Policy(model).eval()(batch, Request()).sums()
    policy = Policy(model)
    set_dropout(policy, 0.2)

    torch.testing.assert_close(policy.eval()(batch, Request(), dropout_seed=5).sums(), plain)
    torch.manual_seed(0)
    drawn = policy.train()(batch, Request()).sums()
    assert (drawn - plain).abs().max() > 1e-6
    set_dropout(policy, 0.0)
    torch.testing.assert_close(policy.train()(batch, Request(), dropout_seed=5).sums(), plain)
    assert not [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p]
