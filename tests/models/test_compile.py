"""Compiled layers give the same scores and gradients."""

from __future__ import annotations

import pytest
import torch

from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

from scoring_models import tiny_model, toy_batch


@pytest.mark.slow
def test_compiled_layers_score_and_learn_as_others_do() -> None:
    """With activation checkpointing, through which compiled layers run again.

    The graphs are those of any backend; they are run by torch's own kernels, since a C++ compiler
    takes minutes for them.
    """
    batch, _ = toy_batch()
    names, scores, gradients = [], [], []
    for compiled in (False, True):
        policy = Policy(tiny_model("llama"))
        policy.checkpoint_activations()
        if compiled:
            policy.compile_layers("aot_eager")
        policy.train()
        found = policy(batch, Request()).token_logps
        found.sum().backward()
        names.append(list(policy.state_dict()))
        scores.append(found.detach())
        gradients.append([one.grad for one in policy.trainable()])
    assert names[0] == names[1]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        ids = torch.arange(4)[None]
        assert policy.outputs(input_ids=ids).logits.shape[:2] == (1, 4)
