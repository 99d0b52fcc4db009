"""Whole optimizer steps: numbers that are not finite, held gradient shares, and resuming both."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from plot_exp.config.losses import (
    DPOConfig,
    KLConfig,
    PLOTConfig,
    SFTConfig,
)
from plot_exp.config.schema import OptimizerConfig, TrainerConfig
from plot_exp.data.loader import StepLoader
from plot_exp.errors import RunError
from plot_exp.losses.base import TermResult
from plot_exp.losses.composite import Composite
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.module import PreferenceModule
from plot_exp.training.finite import FiniteWatch
from plot_exp.training.gradients import GradientShare
from plot_exp.workflows.engine import build_trainer

from loss_scores import context
from scoring_models import VOCABULARY, example, tiny_model

EXAMPLES = [
    example([3 + place], [[5, 6 + place, 7, 2], [8, 9 + 2 * place, 2]]) for place in range(8)
]


def built(sections: Mapping[str, Any]) -> Composite:
    """The terms over counts in which tokens 3 to 20 stand more often in chosen responses."""
    embedding = torch.randn(VOCABULARY, 5, generator=torch.Generator().manual_seed(4))
    chosen = [2 if token <= 20 else 1 for token in range(VOCABULARY)]
    facts = context(
        embedding, chosen, [1] * VOCABULARY, allowed=[token > 2 for token in range(VOCABULARY)]
    )
    return Composite(
        {
            name: importlib.import_module(f"plot_exp.losses.{name}").TERM(section, facts)
            for name, section in sections.items()
        }
    )


class Trained:
    """A few steps on the CPU, with what was logged."""

    def __init__(
        self,
        folder: Path,
        sections: Mapping[str, Any],
        *,
        steps: int = 4,
        stop_after: int | None = None,
        checkpoint: Path | None = None,
        poison: int | None = None,
        **trainer: Any,
    ) -> None:
        settings = TrainerConfig(
            max_steps=steps, batch_size=4, microbatch_size=2, checkpoint_every=1, **trainer
        )
        self.logged: dict[int, dict[str, float]] = {}
        policy = Policy(tiny_model("qwen2"))
        self.composite = built(sections)
        loader = StepLoader(
            EXAMPLES,
            batch_size=4,
            microbatch_size=2,
            epochs=1,
            max_steps=steps,
            seed=0,
            pad_id=0,
            first_step=lambda: self.module.completed_steps,
        )
        self.module = PreferenceModule(
            policy,
            frozen_copy(policy),
            self.composite,
            trainer_config=settings,
            optimizer_config=OptimizerConfig(lr=1e-3, schedule="constant", weight_decay=0.1),
            steps=steps,
            seed=0,
            log=lambda metrics, step: self.logged.update({step: dict(metrics)}),
        )
        if poison is not None:
            self._poison(poison)
        trainer_ = build_trainer(settings, folder, stop_after or steps, [])
        policy.train()
        trainer_.fit(
            self.module,
            loader,
            ckpt_path=str(checkpoint) if checkpoint else None,
            weights_only=True,
        )

    def _poison(self, step: int) -> None:
        """Makes the first term infinite in one step."""
        _, term = next(iter(self.composite.named_terms()))
        plain = term.forward

        def forward(*args: Any) -> TermResult:
            result = plain(*args)
            if self.module.completed_steps + 1 == step:
                return TermResult(result.loss * torch.inf, result.metrics)
            return result

        term.forward = forward  # type: ignore[method-assign]

    def weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.module.policy.parameters()]


REVERSE_KL = {"dpo": DPOConfig(), "kl": KLConfig(direction="reverse")}
SHARED = {
    "dpo": DPOConfig(),
    "plot": PLOTConfig(alpha=3.0, gradient_share=0.25, gradient_share_every=2),
}


def test_an_infinite_term_ends_the_run_in_its_first_step_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"step 1: .*loss term kl = inf.*on_nonfinite=skip"):
        Trained(tmp_path, REVERSE_KL)


def test_a_run_whose_every_step_is_left_out_fails(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no step could be taken"):
        Trained(tmp_path, REVERSE_KL, on_nonfinite="skip")


@pytest.mark.parametrize("coupling", ["exact", "carried"])
def test_a_step_left_out_moves_neither_weights_nor_moments(
    tmp_path: Path, coupling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 3 of 3 is infinite: the weights are those of two steps, decay included."""
    sections = {"sft": SFTConfig(), "plot": PLOTConfig()}
    run = Trained(
        tmp_path / "skip", sections, steps=3, poison=3, on_nonfinite="skip", coupling=coupling
    )
    two = Trained(tmp_path / "two", sections, steps=3, stop_after=2, coupling=coupling)

    for one, other in zip(run.weights(), two.weights(), strict=True):
        assert torch.equal(one, other)
    assert run.module.skipped_steps == 1
    assert run.logged[3] == {"train/skipped_steps": 1.0}
    assert "step 3 left out: loss term sft = inf" in capsys.readouterr().err


def test_training_goes_on_after_a_step_left_out(tmp_path: Path) -> None:
    run = Trained(
        tmp_path, {"sft": SFTConfig()}, steps=4, poison=2, on_nonfinite="skip", log_every=1
    )

    assert run.module.completed_steps == 4
    assert all(bool(torch.isfinite(weight).all()) for weight in run.weights())
    assert run.logged[4]["train/loss"] < run.logged[1]["train/loss"]


def test_a_finite_loss_with_an_infinite_gradient_is_named() -> None:
    watch = FiniteWatch(["sft", "plot"])
    watch.see({"sft": [torch.ones(2)], "plot": [torch.tensor([0.0, torch.nan])]})
    watch.see({"sft": [torch.ones(2)], "plot": [torch.zeros(2)]})
    terms = {"sft": TermResult(torch.tensor(1.0)), "plot": TermResult(torch.tensor(2.0))}

    held = [watch.close(1, terms, torch.tensor(torch.nan))]
    held += [
        watch.close(2, terms, torch.tensor(3.0)),
        watch.close(3, terms, torch.tensor(torch.inf)),
    ]

    assert [float(one) for one in held] == [1.0, 0.0, 1.0]
    found = watch.read()
    assert found[1] == "the gradient of loss term plot is not finite"
    assert found.keys() == {1, 3}
    assert "norm inf" in found[3]
    assert watch.read() == {}


def test_where_a_fault_ends_the_run_no_later_step_moves_the_weights_either() -> None:
    watch = FiniteWatch(["sft"], sticky=True)
    terms = {"sft": TermResult(torch.tensor(1.0))}
    norms = [1.0, torch.nan, 1.0]

    held = [watch.close(place, terms, torch.tensor(norm)) for place, norm in enumerate(norms)]

    assert [float(one) for one in held] == [0.0, 1.0, 1.0]
    assert list(watch.read()) == [1]


def test_the_share_by_hand() -> None:
    """Norms 4 and, at weight 3, 6, so 2 of the bare term: weight = ½·4/2 = 1. Then 8 and 1·5: the
    means are 0.9·4 + 0.8 = 4.4 and 0.9·2 + 0.5 = 2.3, so ½·4.4/2.3.
    """
    term = built({"plot": PLOTConfig(alpha=3.0, gradient_share=0.5)}).terms["plot"]
    share = GradientShare(term)

    share.update(4.0, 6.0)
    assert term.weight == pytest.approx(1.0)
    share.update(8.0, 5.0)
    assert term.weight == pytest.approx(0.5 * 4.4 / 2.3)
    kept = term.weight
    again = GradientShare(built({"plot": PLOTConfig(gradient_share=0.5)}).terms["plot"])
    again.restore(share.state())
    assert again.term.weight == kept
    assert again.means == share.means


def test_a_term_without_a_gradient_keeps_its_weight() -> None:
    term = built({"plot": PLOTConfig(alpha=3.0, gradient_share=0.5)}).terms["plot"]
    GradientShare(term).update(4.0, 0.0)

    assert term.weight == 3.0


def test_the_logged_share_is_the_one_asked_for(tmp_path: Path) -> None:
    """The first step has the weight as given; after that the measured share is near."""
    run = Trained(tmp_path, SHARED, steps=8, log_every=1)
    shares = [run.logged[step]["train/grad_share/plot"] for step in range(1, 9)]

    assert run.logged[1]["train/weight/plot"] == 3.0
    expected = 3.0 * 0.25 / shares[0]
    assert run.logged[2]["train/weight/plot"] == pytest.approx(expected, rel=1e-4)
    assert run.logged[3]["train/weight/plot"] != run.logged[2]["train/weight/plot"]
    assert all(0.1 < share < 0.6 for share in shares[1:]), shares


def test_how_often_is_logged_does_not_change_the_weights(tmp_path: Path) -> None:
    often = Trained(tmp_path / "often", SHARED, steps=5, log_every=1)
    seldom = Trained(tmp_path / "seldom", SHARED, steps=5, log_every=5, log_term_gradients=False)

    for one, other in zip(often.weights(), seldom.weights(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("coupling", ["exact", "carried"])
def test_carried_potentials_survive_a_resume(tmp_path: Path, coupling: str) -> None:
    sections = {
        "sft": SFTConfig(),
        "plot": PLOTConfig(transport="dual", alpha=5.0, limit=16, iterations=2),
    }
    whole = Trained(tmp_path / "whole", sections, steps=6, coupling=coupling)
    Trained(tmp_path / "part", sections, steps=6, stop_after=3, coupling=coupling)
    (checkpoint,) = (tmp_path / "part" / "checkpoints").glob("*.ckpt")

    resumed = Trained(
        tmp_path / "rest", sections, steps=6, checkpoint=checkpoint, coupling=coupling
    )

    for one, other in zip(whole.weights(), resumed.weights(), strict=True):
        assert torch.equal(one, other)
    states = [run.composite.terms["plot"].transport.state for run in (whole, resumed)]
    assert torch.equal(states[0].potential, states[1].potential)
    assert float(states[0].potential.abs().max()) > 0


def test_a_resumed_run_goes_on_with_the_same_share(tmp_path: Path) -> None:
    whole = Trained(tmp_path / "whole", SHARED, steps=6)
    Trained(tmp_path / "part", SHARED, steps=6, stop_after=3)
    (checkpoint,) = (tmp_path / "part" / "checkpoints").glob("*.ckpt")

    resumed = Trained(tmp_path / "rest", SHARED, steps=6, checkpoint=checkpoint)

    assert resumed.module.shares["plot"].state() == whole.module.shares["plot"].state()
    for one, other in zip(whole.weights(), resumed.weights(), strict=True):
        assert torch.equal(one, other)


def test_a_schedule_moves_the_factor_over_the_run(tmp_path: Path) -> None:
    def run(name: str, alpha: float, schedule: Any, stop_after: int | None = None) -> Trained:
        plot = PLOTConfig(alpha=alpha, schedule=schedule)
        sections = {"dpo": DPOConfig(), "plot": plot}
        return Trained(tmp_path / name, sections, steps=4, stop_after=stop_after, log_every=1)

    falling = run("falling", 4.0, "falling").logged
    rising = run("rising", 4.0, "rising").logged

    assert [falling[step]["train/weight/plot"] for step in range(1, 5)] == [4, 3, 2, 1]
    assert [rising[step]["train/weight/plot"] for step in range(1, 5)] == [1, 2, 3, 4]
    started = run("started", 4.0, "rising", stop_after=1)
    by_hand = run("by_hand", 1.0, "constant", stop_after=1)
    for one, other in zip(started.weights(), by_hand.weights(), strict=True):
        assert torch.equal(one, other)


def test_a_gradient_share_is_measured_apart_from_the_schedule() -> None:
    term = built({"plot": PLOTConfig(alpha=2.0, gradient_share=0.5, schedule="rising")}).terms[
        "plot"
    ]
    share = GradientShare(term)

    share.update(other=8.0, weighted=1.0, scheduled=0.25)

    # Its gradient at factor 1 was 1 / (2 · 0.25) = 2, and half of 8 is 4.
    assert term.weight == pytest.approx(2.0)
    assert term.scheduled(1, 4) == 0.25
    assert term.scheduled(4, 4) == 1.0
