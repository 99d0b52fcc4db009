"""PLOT against hand arithmetic, and what must hold of it whatever its options."""

from __future__ import annotations

import itertools

import ot
import pytest
import torch
from torch import Tensor

from plot_exp.config.losses import PLOTConfig
from plot_exp.data.collate import Responses
from plot_exp.losses.base import Totals
from plot_exp.losses.plot import PLOT
from plot_exp.ops.scores import Scores

from loss_scores import context, ranked, scores, totals

LINE = torch.tensor([[0.0], [1.0], [3.0], [10.0]])


def term(points: Tensor = LINE, **options: object) -> PLOT:
    """Chosen hold token 0 and 2 once each, rejected token 1 twice; token 3 is special."""
    settings = {"scale": "raw", "line": "principal_unweighted", **options}
    facts = context(
        points,
        [1, 0, 1, 0],
        [0, 2, 0, 0],
        allowed=[True, True, True, False],
        reference=[0.2, 0.5, 0.2, 0.1],
    )
    return PLOT(PLOTConfig(**settings), facts)


def with_mass(mass: list[float], side: str = "chosen") -> Scores:
    return scores([[-1.0, -1.0], [-1.0]], {(side, "batch"): torch.tensor(mass).double()})


PAIR = ranked((2, 1))


def value(plot: PLOT, policy: Scores, responses: Responses = PAIR) -> float:
    return plot(policy, None, responses, totals(responses)).loss.item()


def test_line_form_by_hand() -> None:
    """Q_diff = (½, −1, ½, 0), relu: q = (½, 0, ½, 0). Summed softmax (0, 2, 0, 1): token 3 is
    special, so p = (0, 1, 0, 0). F_p − F_q = −½ on [0, 1) and ½ on [1, 3): ½·1 + ½·2 = 1.5.
    """
    assert term().target.tolist() == [0.5, 0, 0.5, 0]
    assert value(term(), with_mass([0, 2, 0, 1])) == pytest.approx(1.5, rel=1e-6)


def test_token_ids_with_unit_gaps_know_nothing_of_the_embeddings() -> None:
    """½·1 + ½·1 = 1 whatever the embedding is."""
    plot = term(line="token_id")

    assert value(plot, with_mass([0, 2, 0, 1])) == pytest.approx(1.0, rel=1e-6)


def test_spread_scale_makes_the_value_free_of_the_embeddings_unit() -> None:
    policy = with_mass([0.3, 2, 0.2, 1])
    values = [value(term(LINE * factor, scale="spread"), policy) for factor in (1.0, 25.0)]

    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_the_models_own_target_costs_nothing() -> None:
    assert value(term(), with_mass([4, 0, 4, 1])) == pytest.approx(0, abs=1e-7)


def test_sides_are_pooled_by_their_tokens() -> None:
    """Chosen mass (0, 2, 0, 0) and rejected (2, 0, 0, 0) make p = (½, ½, 0, 0): ½·1·0 + … = 1."""
    policy = scores(
        [[-1.0, -1.0], [-1.0, -1.0]],
        {
            ("chosen", "batch"): torch.tensor([0.0, 2, 0, 0]).double(),
            ("rejected", "batch"): torch.tensor([2.0, 0, 0, 0]).double(),
        },
    )

    assert value(term(side="both"), policy) == pytest.approx(1.0, rel=1e-6)


def test_the_batch_mean_is_never_farther_than_responses_nor_they_than_positions() -> None:
    """W1 is jointly convex; two positions of one response and one of another, lengths apart."""
    positions = torch.tensor(
        [[1.0, 0, 0, 0], [0, 1, 0, 0], [0.2, 0.2, 0.6, 0]], dtype=torch.float64
    )
    responses = ranked((2, 1), (1, 1))
    values = {}
    for pool, mass in (
        ("batch", positions.sum(0)),
        ("response", torch.stack([positions[:2].sum(0), positions[2]])),
        ("position", positions),
    ):
        policy = scores([[-1.0] * 2, [-1.0], [-1.0], [-1.0]], {("chosen", pool): mass})
        values[pool] = value(term(distribution=pool), policy, responses)

    # Positions and responses weigh differently in a mean over responses, so each is held
    # against the mean that it is convex in.
    assert values["batch"] <= values["position"] + 1e-9
    mean = (positions[:2].mean(0) + positions[2]) / 2
    policy = scores([[-1.0] * 2, [-1.0], [-1.0], [-1.0]], {("chosen", "batch"): mean})
    assert value(term(), policy, responses) <= values["response"] + 1e-9


def test_pools_other_than_the_batch_are_sums_over_the_parts() -> None:
    """Two microbatches with the whole's denominators give the whole's value: not coupled."""
    positions = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)).double()
    plot = term(distribution="position")
    whole_responses = ranked((2, 1), (3, 2))
    whole = scores([[-1.0] * n for n in (2, 1, 3, 2)], {("chosen", "position"): positions})
    counts = totals(whole_responses)

    parts = [(ranked((2, 1)), positions[:2]), (ranked((3, 2)), positions[2:])]
    added = 0.0
    for responses, mass in parts:
        policy = scores([[-1.0] * int(n) for n in responses.length], {("chosen", "position"): mass})
        added += plot(policy, None, responses, counts).loss.item()

    assert not plot.coupled
    assert added == pytest.approx(value(plot, whole, whole_responses), rel=1e-9)


OPTIONS = [
    dict(zip(("transport", "line", "transform", "anchor", "embedding"), choice, strict=True))
    for choice in itertools.product(
        ("line", "path", "sliced"),
        ("principal", "norm", "random", "token_id"),
        ("relu", "shift", "softmax", "absolute"),
        ("none", "reference"),
        ("input", "output", "contextual"),
    )
]


@pytest.mark.parametrize("scale", ["raw", "spread"])
def test_every_choice_gives_a_target_without_special_tokens_and_a_centred_gradient(
    scale: str,
) -> None:
    """Pulled back through the softmax, the gradient sums to zero over the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(4, 3, generator=generator)
    logits = torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_()
    for options in OPTIONS:
        plot = term(embedding, scale=scale, **options)
        policy = scores([[-1.0, -1.0], [-1.0]], {("chosen", "batch"): torch.softmax(logits, -1)})
        responses = ranked((2, 1))
        loss = plot(policy, None, responses, Totals.of([responses])).loss
        (gradient,) = torch.autograd.grad(loss, [logits])
        assert plot.target[3] == 0
        assert plot.target.sum().item() == pytest.approx(1, rel=1e-6)
        assert loss.item() >= 0
        assert gradient.sum().item() == pytest.approx(0, abs=1e-6)


POINTS = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [9.0, 9.0]])


def test_full_cost_by_hand() -> None:
    """q = (½, 0, ½, 0), p = (0, 1, 0, 0) at (3, 4): ½·5 to (0, 0) and ½·√18 to (0, 1)."""
    expected = 2.5 + 0.5 * 18**0.5
    mass = with_mass([0, 2, 0, 1])

    assert value(term(POINTS, transport="exact"), mass) == pytest.approx(expected, rel=1e-5)
    # Of few tokens the entropy leaves nothing to choose: all mass comes from one.
    assert value(term(POINTS, transport="sinkhorn"), mass) == pytest.approx(expected, rel=1e-3)
    assert value(term(POINTS, transport="dual"), mass) == pytest.approx(expected, rel=1e-3)


def test_exact_is_the_oracles_value_and_bounds_the_line_and_the_path() -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(4, 3, generator=generator)
    mass = [0.3, 2, 0.7, 1]
    p = torch.tensor([*mass[:3], 0.0], dtype=torch.float64) / 3
    cost = torch.cdist(points.double(), points.double())
    plot = term(points, transport="exact")

    exact = value(plot, with_mass(mass))

    oracle = ot.emd2(p.numpy(), plot.target.numpy(), cost.numpy())
    assert exact == pytest.approx(oracle, rel=1e-5)
    assert value(term(points), with_mass(mass)) <= exact + 1e-6
    assert value(term(points, transport="sliced"), with_mass(mass)) <= exact + 1e-6
    assert exact <= value(term(points, transport="path"), with_mass(mass)) + 1e-6


def test_carried_potentials_move_only_where_a_gradient_is_wanted() -> None:
    plot = term(POINTS, transport="dual")
    value(plot, with_mass([0, 2, 0, 1]))
    assert not plot.transport.state.potential.any()

    plot(with_mass([0.5, 2, 0, 1]).leaves(), None, PAIR, totals(PAIR))
    assert plot.transport.state.potential.any()


@pytest.mark.parametrize("pool", ["batch", "response", "position"])
@pytest.mark.parametrize("transport", ["line", "path", "sliced"])
def test_gradient_against_finite_differences(pool: str, transport: str) -> None:
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(4, 3, generator=generator)
    plot = term(embedding, distribution=pool, transport=transport)
    shape = (4,) if pool == "batch" else (2, 4)
    mass = (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()
    responses = ranked((1, 1), (1, 1))
    policy = scores([[-1.0]] * 4, {("chosen", pool): mass})

    def loss(values: Tensor) -> Tensor:
        found = policy.replace_tensors([policy.token_logps, values])
        return plot(found, None, responses, Totals.of([responses])).loss

    assert torch.autograd.gradcheck(loss, (mass,), eps=1e-7, atol=1e-5)
