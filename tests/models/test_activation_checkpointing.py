"""Running layers again in the backward pass changes no gradient, whatever is dropped."""

from __future__ import annotations

import pytest
import torch

from plot_exp.data.collate import collate
from plot_exp.data.packing import PADDED, Layout
from plot_exp.models.dropout import set_dropout
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

from scoring_models import ARCHITECTURES, tiny_model, toy_batch, toy_examples

BATCH, _ = toy_batch()
LAYOUTS = [PADDED, Layout("shared"), Layout("packed", joined=True)]


def gradients(
    architecture: str, dropout: float, layout: Layout, *, checkpointing: bool
) -> list[torch.Tensor]:
    """Of two backward passes through one graph, with another pass in between."""
    batch = collate(toy_examples(), 0, layout)
    policy = Policy(tiny_model(architecture).double())
    set_dropout(policy, dropout)
    if checkpointing:
        policy.checkpoint_activations()
    policy.train()
    seed = 5 if dropout else None
    outputs = policy(batch, Request(), dropout_seed=seed).token_logps
    with torch.no_grad():
        policy(BATCH, Request(), dropout_seed=None)
    weights = torch.linspace(-1, 1, len(outputs), dtype=outputs.dtype)
    outputs.backward(weights, retain_graph=True)
    outputs.backward(weights**2)
    found = [parameter.grad for parameter in policy.parameters()]
    assert all(one is not None for one in found)
    return found


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(
    ("architecture", "layout"),
    [*((name, PADDED) for name in ARCHITECTURES), *(("qwen2", one) for one in LAYOUTS[1:])],
)
def test_the_gradients_stay(architecture: str, layout: Layout, dropout: float) -> None:
    plain = gradients(architecture, dropout, layout, checkpointing=False)
    again = gradients(architecture, dropout, layout, checkpointing=True)
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
