"""Plans against arithmetic, against one another, and against a step that is really taken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plot_exp.config.composition import compose
from plot_exp.config.losses import TERMS
from plot_exp.data.packing import PADDED
from plot_exp.errors import UserError
from plot_exp.planner.advice import _every_weight
from plot_exp.planner.batches import alike
from plot_exp.planner.devices import Devices
from plot_exp.planner.moments import step_of
from plot_exp.planner.plan import Data, Plan, make_plan
from plot_exp.planner.rehearsal import Scene, rehearse
from plot_exp.planner.shape import model_shape, with_layers
from plot_exp.planner.text import lines_of
from plot_exp.workflows import plan as workflow

QWEN_7B = 7_615_616_512  # weights, as published
SMALL = (
    "model=tiny",
    "model.tiny.hidden_size=64",
    "model.tiny.layers=6",
    "eval=none",
    "trainer.log_term_gradients=false",
)


def planned(*overrides: str, length: int = 64, count: int = 64) -> Plan:
    """A plan on examples that are all as long."""
    items = alike(count, length // 2, length // 2)
    data = Data(items, items[:4], "made up")
    return make_plan(compose(["task=plan", *overrides]), data)


def scene(*overrides: str, layers: int | None = None) -> Scene:
    config = compose([*SMALL, *overrides])
    shape = model_shape(config)
    if layers is not None:
        shape = with_layers(shape, layers)
    devices = Devices("cpu", 1, False, 10**12, "made up")
    return Scene(config, shape, devices, PADDED, (tuple(alike(4, 20, 30)),), "cached")


@pytest.mark.slow
def test_the_published_shape_is_planned_without_a_download() -> None:
    plan = planned("model=qwen7b", "loss=dpo", "eval=none", "trainer.log_term_gradients=false")
    assert plan.weights == plan.trained == QWEN_7B
    parts = plan.peak.parts
    # The rest of the weights' part is the rotary embedding's few numbers.
    assert parts["weights"] == pytest.approx(4 * QWEN_7B, abs=1_024)
    assert parts["optimizer"] == 8 * QWEN_7B
    assert not plan.fits
    assert plan.devices.source.startswith(("assumed", "measured"))


def test_adapters_leave_frozen_weights_without_gradients_and_states() -> None:
    lora = ("model.lora.rank=8", "model.lora.target_modules=[q_proj]")
    plan = planned(*SMALL, "loss=dpo", *lora)
    hidden, layers, rank = 64, 6, 8
    assert plan.trained == layers * 2 * hidden * rank
    at_the_end = next(one for one in plan.moments if one.phase == "end").parts
    assert at_the_end["gradients"] == 4 * plan.trained
    assert at_the_end["optimizer"] == 8 * plan.trained
    assert plan.form == "cached"


def test_a_copy_of_the_reference_has_the_policys_size() -> None:
    plan = planned(*SMALL, "loss=dpo", "reference_form=copy")
    assert plan.peak.parts["reference"] == pytest.approx(plan.peak.parts["weights"], rel=1e-3)


@pytest.mark.parametrize(
    "own",
    [
        ("loss=dpo+plot", "trainer.log_term_gradients=true"),
        ("loss=dpo", "trainer.activation_checkpointing=true"),
        ("loss=dpo", "trainer.precision=bf16-mixed", "model.lora.rank=4"),
    ],
)
def test_layers_beyond_three_follow_a_line(own: Sequence[str]) -> None:
    whole = rehearse(scene(*own))
    line = step_of(scene(*own))
    found = {moment.phase: moment.total for moment in line.moments}
    for phase, parts in whole.peaks.items():
        if "between" not in phase:
            assert found[phase] == pytest.approx(sum(parts.values()), rel=1e-3), phase
    assert line.peak.total == pytest.approx(max(map(whole.weigh, whole.peaks.values())), rel=1e-3)
    assert sum(line.flops.values()) == pytest.approx(sum(whole.flops.values()), rel=1e-6)


def test_checkpointing_and_smaller_microbatches_keep_less() -> None:
    def kept(*own: str) -> float:
        return planned(*SMALL, "loss=dpo", *own, length=200).peak.total

    plain = kept()
    assert kept("trainer.activation_checkpointing=true") < plain
    assert kept("trainer.microbatch_size=4") < plain


def test_shares_of_weights_on_several_devices() -> None:
    one = scene("loss=dpo")
    four = replace(one, devices=Devices("cpu", 4, True, 10**12, "made up"))
    alone, shared = (
        {moment.phase: moment.parts for moment in step_of(given).moments} for given in (one, four)
    )
    for part in ("weights", "optimizer"):
        assert shared["forward"][part] == alone["forward"][part] / 4
    assert shared["forward"]["activations"] == alone["forward"]["activations"]
    assert shared["forward"]["gathered weights"] > 0


def test_eight_bit_moments_by_arithmetic() -> None:
    plain = planned(*SMALL, "loss=dpo", "optimizer.eight_bit=true")
    states = plain.peak.parts["optimizer"]
    # A byte a moment and 4 bytes a block of 256; small tensors stay in single precision.
    assert states == pytest.approx(2 * plain.trained * (1 + 4 / 256), rel=0.02)


def test_advice_that_is_typed_gives_the_plan_that_it_promised() -> None:
    run = ("model=tiny", "trainer=gpu", "plan.gpu=A100", "eval=none", "loss=dpo")
    config = compose(["task=plan", *run])
    items = alike(8, 30, 30)
    data = Data(items, items[:4], "made up")
    promised = _every_weight(config, lambda changed: make_plan(changed, data))
    assert "every weight is trained" in promised.costs
    typed = make_plan(compose(["task=plan", *run[:1], *run[3:], *promised.override.split()]), data)
    assert typed.devices.kind == "cuda", "not where a GPU happens to be here"
    assert typed.peak.total == promised.peak


def test_several_processes_are_called_so() -> None:
    plan = planned(*SMALL, "loss=dpo", "trainer=fsdp", "trainer.devices=2", count=8)
    plan = replace(plan, devices=replace(plan.devices, kind="cpu"))
    assert "; 2 CPU processes, weights in shares;" in "\n".join(lines_of(plan, []))


@pytest.mark.slow
def test_a_plan_says_what_helps_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = (*SMALL, "loss=dpo+plot", "trainer.log_term_gradients=true")
    needed = planned(*run, length=300).peak.total
    config = compose(
        [
            "task=plan",
            *run,
            f"plan.memory_gib={0.9 * needed / 2**30}",
            "plan.prompt_tokens=150",
            "plan.response_tokens=150",
            "plan.examples=64",
            "plan.tflops=1",
        ]
    )
    found = workflow.run(config, tmp_path)
    facts = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert found["plan/fits"] == 0.0
    assert not facts["fits"]
    peaks = [facts["peak"]["bytes"], *(row["peak"] for row in facts["advice"])]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] == pytest.approx(needed, rel=0.01)
    assert peaks[-1] <= 0.9 * needed
    assert facts["advice"][0]["override"] == "trainer.log_term_gradients=false"
    assert facts["seconds"] == pytest.approx(facts["steps"] * facts["flops_a_step"] / 1e12)
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "trainer.log_term_gradients=false" in said
    assert sum(facts["parts"].values()) == pytest.approx(facts["peak"]["bytes"], abs=50)


@pytest.mark.slow
@pytest.mark.parametrize("term", sorted(TERMS))
def test_every_term_is_rehearsed(term: str) -> None:
    own = ["loss=dpo" if term == "dpo" else f"loss=dpo+{term}"]
    if term == "plot":
        own.append("loss.plot.transport=exact")  # its way depends on numbers
    found = rehearse(replace(scene(*own, layers=1), form="copy"))
    assert found.flops["forward"] > 0
    assert found.peaks["backward, head"]["weights"] == found.peaks["start"]["weights"]


def test_a_model_that_is_not_here_is_one_sentence() -> None:
    workflow.offline()
    config = compose(["task=plan", "model=hf", "model.name=nobody/nothing"])
    with pytest.raises(UserError, match="its shape is not known here"):
        model_shape(config)


@pytest.mark.slow
def test_activations_of_a_real_pass_are_those_of_the_rehearsal() -> None:
    """The same model with numbers: autograd's saved tensors, each storage once."""
    from plot_exp.data.collate import collate
    from plot_exp.models.policy import Policy
    from plot_exp.ops.scores import Request

    given = scene("loss=dpo")
    from transformers import AutoModelForCausalLM

    policy = Policy(AutoModelForCausalLM.from_config(given.shape)).train()
    owned = {one.untyped_storage().data_ptr() for one in policy.state_dict().values()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned and tensor.is_floating_point():
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        kept.append(policy(collate(given.microbatches[0], 0), Request()))
    rehearsed = rehearse(given).peaks["losses"]
    found = rehearsed["activations"] + rehearsed["logits and head"]
    assert sum(saved.values()) == pytest.approx(found, rel=0.05)
