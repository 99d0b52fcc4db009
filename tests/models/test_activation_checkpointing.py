"""Running layers again in the backward pass changes no gradient, whatever is dropped."""

from __future__ import annotations

import pytest
import torch

from plot_exp.models.dropout import set_dropout
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

from scoring_models import ARCHITECTURES, tiny_model, toy_batch

BATCH, _ = toy_batch()


def gradients(architecture: str, dropout: float, *, checkpointing: bool) -> list[torch.Tensor]:
    """Of two backward passes through one graph, with another pass in between."""
    policy = Policy(tiny_model(architecture).double())
    set_dropout(policy, dropout)
    if checkpointing:
        policy.checkpoint_activations()
    policy.train()
    seed = 5 if dropout else None
    outputs = policy(BATCH, Request(), dropout_seed=seed).token_logps
    with torch.no_grad():
        policy(BATCH, Request(), dropout_seed=None)
    weights = torch.linspace(-1, 1, len(outputs), dtype=outputs.dtype)
    outputs.backward(weights, retain_graph=True)
    outputs.backward(weights**2)
    found = [parameter.grad for parameter in policy.parameters()]
    assert all(one is not None for one in found)
    return found


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gradients_stay(architecture: str, dropout: float) -> None:
    plain = gradients(architecture, dropout, checkpointing=False)
    again = gradients(architecture, dropout, checkpointing=True)
    for one, other in zip(plain, again, strict=True):
        assert torch.equal(one, other)


def test_layers_do_run_again() -> None:
    policy = Policy(tiny_model("llama"))
    policy.checkpoint_activations()
    policy.train()
    runs = []
    layer = policy.model.model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: runs.append(1))
    policy(BATCH, Request()).token_logps.sum().backward()
    assert len(runs) == 2
