"""Which phase of a step the models are in, from hooks on their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Scores
from plot_exp.planner.ledger import Ledger
from plot_exp.planner.shape import layers_of


@contextmanager
def following(policy: Policy, ledger: Ledger) -> Iterator[None]:
    """Tells the ledger which phase the step is in, from hooks on the model."""
    layers = layers_of(policy.model)
    hooks = [
        policy.register_forward_pre_hook(lambda *_: _begin(ledger)),
        policy.register_forward_hook(lambda _, __, scores: _scored(ledger, scores)),
        policy.model.get_decoder().register_forward_hook(
            lambda _, __, out: _decoded(ledger, out.last_hidden_state)
        ),
    ]
    for place, layer in enumerate(layers):
        hooks.append(layer.register_forward_hook(_at_layer(ledger, place, len(layers))))
    for parameter in policy.trainable():
        hooks.append(
            parameter.register_post_accumulate_grad_hook(
                lambda one: ledger.book(one.grad, "gradients")
            )
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _begin(ledger: Ledger) -> None:
    graph = "forward" if torch.is_grad_enabled() else "forward without gradients"
    ledger.enter(graph, "activations")


def _scored(ledger: Ledger, scores: Scores) -> None:
    ledger.enter("losses", "loss terms")
    for output in scores.tensors():
        if output.requires_grad:
            output.register_hook(lambda _: ledger.enter("backward, head", "logits and head"))


def _decoded(ledger: Ledger, hidden: Tensor) -> None:
    ledger.enter("head", "logits and head")
    if hidden.requires_grad:
        hidden.register_hook(lambda _: ledger.enter("backward, last layer", "backward"))


def _at_layer(ledger: Ledger, place: int, count: int) -> Callable[..., None]:
    """On a layer's output: when its gradient is there, the layer's backward pass begins."""
    name = {0: "backward, first layer", count - 1: "backward, last layer"}.get(
        place, "backward, between"
    )

    def follow(_: nn.Module, __: Any, found: Any) -> None:
        hidden = found[0] if isinstance(found, tuple) else found
        if hidden.requires_grad:
            hidden.register_hook(lambda _: ledger.enter(name, "backward"))

    return follow
