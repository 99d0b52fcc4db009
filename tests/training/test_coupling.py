"""Accumulation changes no loss and no gradient: 1×6 ≡ 3×2 ≡ 6×1."""

from __future__ import annotations

import pytest
import torch

from plot_exp.data.collate import collate_padded
from plot_exp.losses.base import Totals
from plot_exp.ops.scores import Request
from plot_exp.training.gradients import TermGradientMeter
from plot_exp.training.part import Part

from coupling_runs import SECTIONS, Data, Run, examples, unpaired_examples

LOSSES = [
    *SECTIONS,
    "dpo+plot",
    "sft+plot",
    "sft+plot_response",
    "dpo+sft+plot_position",
    "aot+plot",
    "pro+deft",
]


@pytest.mark.parametrize(
    ("loss", "data"),
    [*((loss, examples) for loss in LOSSES), ("aot_unpaired+kl+deft", unpaired_examples)],
)
def test_any_accumulation_gives_the_loss_and_gradient_of_one_batch(loss: str, data: Data) -> None:
    run = Run(loss, data=data)
    whole, gradients = run.step([6])

    for sizes in ([2, 2, 2], [1] * 6, [4, 2]):
        split, split_gradients = run.step(sizes)
        for name, result in whole.terms.items():
            torch.testing.assert_close(split.terms[name].loss, result.loss, rtol=1e-10, atol=0)
        torch.testing.assert_close(split_gradients, gradients, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(split.whole().policy.sums(), whole.whole().policy.sums())
        assert torch.equal(split.whole().responses.pairs, whole.whole().responses.pairs)


@pytest.mark.parametrize("loss", ["dpo", "dpo+plot"])
def test_the_gradient_is_that_of_the_plainly_written_loss(loss: str) -> None:
    """One graph from parameters to loss, without leaves or passes."""
    run = Run(loss)
    _, gradients = run.step([2, 2, 2])

    run.policy.zero_grad()
    batch = collate_padded(examples(6), 0)
    found = run.policy(batch, run.composite.request)
    with torch.no_grad():
        reference = run.reference(batch, Request())
    log_ratio = found.sums() - reference.sums()
    chosen, rejected = batch.responses.pairs.unbind(-1)
    total = -torch.nn.functional.logsigmoid(0.1 * (log_ratio[chosen] - log_ratio[rejected])).mean()
    if "plot" in loss:
        plot = run.composite.terms["plot"]
        mass = found.distributions[("chosen", "batch")] + found.distributions[("rejected", "batch")]
        total = total + 2.0 * plot.distance(plot.restrict(mass))
    total.backward()

    plain = [parameter.grad for parameter in run.policy.parameters()]
    torch.testing.assert_close(gradients, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", ["dpo", "aot", "pro", "dpo+plot"])
def test_with_dropout_on_any_accumulation_still_gives_one_batchs_gradient(loss: str) -> None:
    """Masks belong to tokens, so neither the microbatch nor its padding decides what is dropped."""
    run = Run(loss, dropout=0.3)
    whole, gradients = run.step([6])
    undropped, _ = Run(loss).step([6])
    first = next(iter(whole.terms))
    assert whole.terms[first].loss != undropped.terms[first].loss

    for sizes in ([2, 2, 2], [1] * 6, [4, 2]):
        split, split_gradients = run.step(sizes)
        for name, result in whole.terms.items():
            torch.testing.assert_close(split.terms[name].loss, result.loss, rtol=1e-6, atol=1e-9)
        # The architecture's norms run in fp32, so rows of another width round apart.
        torch.testing.assert_close(split_gradients, gradients, rtol=1e-3, atol=1e-6)


def test_with_dropout_on_the_second_pass_repeats_the_first() -> None:
    """Central difference of the two-pass loss along its own gradient, dropout masks fixed."""
    run = Run("dpo+plot", dropout=0.3)
    _, gradients = run.step([2, 2, 2])
    assert run.policy.training

    def loss_at(step: float) -> float:
        with torch.no_grad():
            for parameter, gradient in zip(run.policy.parameters(), gradients, strict=True):
                parameter += step * gradient
        outcome, _ = run.step([2, 2, 2])
        with torch.no_grad():
            for parameter, gradient in zip(run.policy.parameters(), gradients, strict=True):
                parameter -= step * gradient
        weights = run.composite.weights
        return sum(weights[name] * float(result.loss) for name, result in outcome.terms.items())

    squared = sum(float((gradient**2).sum()) for gradient in gradients)
    # The architecture's norms run in fp32, which bounds how small a step can be measured.
    width = 3e-4 / squared**0.5
    slope = (loss_at(width) - loss_at(-width)) / (2 * width)
    assert slope == pytest.approx(squared, rel=2e-3)


def test_microbatch_coupling_is_the_mean_of_the_parts_own_losses() -> None:
    run = Run("plot")
    alone = []
    items = examples(6)
    for start in (0, 4):
        batch = collate_padded(items[start : start + 4], 0)
        found = run.policy(batch, run.composite.request)
        totals = Totals.of([batch.responses])
        alone.append(run.composite(found, None, batch.responses, totals)["plot"].loss.item())

    outcome, _ = run.step([4, 2], mode="microbatch")

    assert outcome.terms["plot"].loss.item() == pytest.approx(
        4 / 6 * alone[0] + 2 / 6 * alone[1], rel=1e-12
    )
    exact, _ = run.step([4, 2])
    assert outcome.terms["plot"].loss > exact.terms["plot"].loss


@pytest.mark.parametrize(
    "loss", ["aot", "aot_unpaired", "plot", "deft", "kl", "kl_reverse", "js", "mse", "uld_batch"]
)
def test_a_coupled_terms_parts_alone_are_another_objective(loss: str) -> None:
    """What accumulation must not do to it; a convex divergence is never smaller on the parts."""
    run = Run(loss)
    assert run.composite.coupled
    exact, gradients = run.step([2, 2, 2])

    parts, part_gradients = run.step([2, 2, 2], mode="microbatch")

    difference = float(parts.terms[loss].loss - exact.terms[loss].loss)
    assert abs(difference) > 1e-6 * abs(float(exact.terms[loss].loss))
    if loss not in ("aot", "aot_unpaired", "deft", "uld_batch"):
        assert difference > 0
    biggest = max(
        float((a - b).abs().max()) for a, b in zip(gradients, part_gradients, strict=True)
    )
    assert biggest > 1e-6


def test_the_floor_of_deft_holds_some_tokens_of_the_batch_and_not_others() -> None:
    outcome, _ = Run("deft").step([6])

    assert 0.1 < float(outcome.terms["deft"].metrics["floored"]) < 0.9


@pytest.mark.parametrize("loss", ["dpo+plot", "aot+deft", "aot_unpaired+kl"])
def test_carried_coupling_equals_exact_while_the_batch_stays_the_same(loss: str) -> None:
    """With the last step's statistics equal to this one's there is nothing stale in them."""
    run = Run(loss)
    exact, gradients = run.step([2, 2, 2])

    carried, carried_gradients = run.step([2, 2, 2], mode="carried", carried=exact.parts)

    for name, result in exact.terms.items():
        torch.testing.assert_close(carried.terms[name].loss, result.loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(carried_gradients, gradients, rtol=1e-9, atol=1e-12)


def test_only_carried_coupling_reads_the_last_steps_parts() -> None:
    run = Run("dpo+plot")
    exact, _ = run.step([2, 2, 2])
    _, alone = run.step([2, 2, 2], mode="microbatch")

    _, given = run.step([2, 2, 2], mode="microbatch", carried=exact.parts)

    torch.testing.assert_close(given, alone, rtol=0, atol=0)


def test_carried_coupling_begins_with_an_exact_step() -> None:
    run = Run("dpo+plot")
    _, exact = run.step([3, 3])

    _, first = run.step([3, 3], mode="carried", carried=None)

    torch.testing.assert_close(first, exact, rtol=0, atol=0)


def test_carried_parts_survive_a_checkpoint() -> None:
    run = Run("dpo+plot")
    outcome, _ = run.step([2, 4])
    again = [Part.from_tensors(part.as_tensors()) for part in outcome.parts]

    _, one = run.step([2, 4], mode="carried", carried=outcome.parts)
    _, other = run.step([2, 4], mode="carried", carried=again)

    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_term_gradients_add_up_to_the_whole_and_measuring_changes_nothing() -> None:
    run = Run("dpo+plot")
    _, plain = run.step([2, 2, 2])
    meter = TermGradientMeter(run.policy.trainable(), ["dpo", "plot"])

    _, measured = run.step([2, 2, 2], meter=meter)

    torch.testing.assert_close(measured, plain, rtol=0, atol=0)
    added = [
        one + other
        for one, other in zip(meter.collected["dpo"], meter.collected["plot"], strict=True)
    ]
    # The architecture's norms run in fp32, so separate backward passes round apart.
    torch.testing.assert_close(added, plain, rtol=1e-4, atol=1e-7)
    metrics = meter.metrics("dpo")
    norms = {
        name: sum(float((gradient**2).sum()) for gradient in rows) ** 0.5
        for name, rows in meter.collected.items()
    }
    assert float(metrics["train/grad_norm/dpo"]) == pytest.approx(norms["dpo"])
    assert float(metrics["train/grad_share/plot"]) == pytest.approx(norms["plot"] / norms["dpo"])
    assert -1 <= float(metrics["train/grad_cosine/plot"]) <= 1


def test_an_unused_term_output_has_a_zero_gradient() -> None:
    """DPO does not read the distribution that PLOT asked for."""
    run = Run("dpo+plot")
    outcome, _ = run.step([6])

    assert set(outcome.terms) == {"dpo", "plot"}
    assert outcome.whole().policy.distributions.keys() == {
        ("chosen", "batch"),
        ("rejected", "batch"),
    }
