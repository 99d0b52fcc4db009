"""A batch of undesirable responses alone has no distribution of chosen ones: no loss, no pull."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from plot_exp.config.losses import JSConfig, KLConfig, MSEConfig, PLOTConfig, ULDConfig
from plot_exp.data.collate import describe_responses
from plot_exp.losses.base import Term, Totals
from plot_exp.ops.scores import Scores

from loss_scores import context, scores
from scoring_models import example

FACTS = context(torch.eye(4), [4, 2, 1, 0], [0, 1, 2, 4])
UNDESIRABLE = describe_responses([example([1], [[2]], desirable=(False,))])
DESIRABLE = describe_responses([example([1], [[2]], desirable=(True,))])

CONFIGS: dict[str, Any] = {
    "plot": PLOTConfig,
    "kl": KLConfig,
    "js": JSConfig,
    "mse": MSEConfig,
    "uld": ULDConfig,
}
CASES = [
    ("plot", {"transport": "line"}),
    ("plot", {"transport": "sliced"}),
    ("plot", {"transport": "exact"}),
    ("plot", {"transport": "sinkhorn"}),
    *((name, {}) for name in ("kl", "js", "mse", "uld")),
]


def build(name: str, options: dict[str, Any]) -> Term:
    module = importlib.import_module(f"plot_exp.losses.{name}")
    term: Term = module.TERM(CONFIGS[name](**options), FACTS)
    return term


def nothing(pool: Any) -> Scores:
    mass = torch.zeros(4) if pool == "batch" else torch.zeros(0, 4)
    return scores([[-1.0]], {("chosen", pool): mass}).leaves()


@pytest.mark.parametrize("pool", ["batch", "response", "position"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_zero_with_zero_gradient(name: str, options: dict[str, Any], pool: str) -> None:
    """The gradient is asked for too: divided by no mass it would be 1e38, or infinite."""
    term, policy = build(name, {**options, "distribution": pool}), nothing(pool)
    result = term(policy, None, UNDESIRABLE, Totals.of([UNDESIRABLE]))
    (gradient,) = torch.autograd.grad(result.loss, policy.tensors()[1:])

    assert result.loss.item() == 0
    assert all(value.isfinite() for value in result.metrics.values())
    assert not gradient.any()


@pytest.mark.parametrize("transport", ["exact", "sinkhorn"])
def test_a_microbatch_may_lack_the_side_that_the_batch_has(transport: str) -> None:
    term = build("plot", {"transport": transport, "distribution": "response"})
    totals = Totals.of([UNDESIRABLE, DESIRABLE])
    assert term(nothing("response"), None, UNDESIRABLE, totals).loss.item() == 0


def test_carried_potentials_do_not_move_on_nothing() -> None:
    term: Any = build("plot", {"transport": "dual"})
    before = term.transport.get_extra_state()
    assert term(nothing("batch"), None, UNDESIRABLE, Totals.of([UNDESIRABLE])).loss.item() == 0
    after = term.transport.get_extra_state()
    assert all(
        torch.equal(torch.as_tensor(before[key]), torch.as_tensor(after[key])) for key in before
    )
