"""The schedule's exact values, the average of the weights, and moments in eight bits."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn

from plot_exp.config.combinations import RULES
from plot_exp.config.composition import compose
from plot_exp.config.schema import OptimizerConfig
from plot_exp.errors import UserError
from plot_exp.training.average import averaged, has_average, named_averages, swap_average
from plot_exp.training.optimizer import build_optimizer, learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.5, 1.0, 1.0, *(0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(1, 8))]),
        ("linear", [0.5, 1.0, 1.0, *(1 - k / 8 for k in range(1, 8))]),
        ("constant", [0.5, 1.0, *[1.0] * 8]),
    ],
)
def test_schedules_rise_in_the_warm_up_and_fall_to_the_last_step(schedule, expected):
    settings = OptimizerConfig(schedule=schedule, warmup_fraction=0.2)
    found = [learning_rate_factor(step, 10, settings) for step in range(10)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_without_warm_up_the_first_step_has_the_whole_rate():
    settings = OptimizerConfig(warmup_fraction=0.0)
    assert learning_rate_factor(0, 4, settings) == 1.0
    assert learning_rate_factor(4, 4, settings) == 0.0
    whole = OptimizerConfig(warmup_fraction=1.0, schedule="linear")
    assert [learning_rate_factor(step, 4, whole) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def small_model(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(80, 70).to(dtype)


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps, held=()) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for one in model.parameters():
            one.grad = torch.randn(one.shape, generator=generator).to(one)
        optimizer.found_inf = torch.tensor(float(step in held))
        optimizer.step()


def test_the_average_is_the_recurrence_over_the_steps_taken():
    model, twin = small_model(), small_model()
    settings = OptimizerConfig(lr=0.05, ema=0.7)
    optimizer = build_optimizer(model.parameters(), settings)
    plain = build_optimizer(twin.parameters(), settings.model_copy(update={"ema": None}))
    expected = [one.detach().double() for one in twin.parameters()]
    for step in range(5):
        take_steps(model, optimizer, [step], held={2})
        take_steps(twin, plain, [step], held={2})
        if step != 2:
            for place, one in enumerate(twin.parameters()):
                expected[place] = 0.7 * expected[place] + 0.3 * one.detach().double()
    averages = named_averages(model, optimizer)
    assert list(averages) == ["weight", "bias"]
    for found, right in zip(averages.values(), expected, strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=1e-6)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not has_average(plain)


def test_the_average_stands_in_for_the_weights_and_goes_back_to_the_last_bit():
    model = small_model()
    optimizer = build_optimizer(model.parameters(), OptimizerConfig(lr=0.05, ema=0.5))
    with averaged(optimizer):  # before the first step there is none
        pass
    take_steps(model, optimizer, range(3))
    weights = model.weight.detach().clone()
    average = named_averages(model, optimizer)["weight"].clone()
    with averaged(optimizer):
        assert torch.equal(model.weight, average)
    assert torch.equal(model.weight, weights)
    swap_average(optimizer)
    assert torch.equal(model.weight, average)
    assert torch.equal(named_averages(model, optimizer)["weight"], weights)


@pytest.mark.parametrize("eight_bit", [False, True])
def test_average_and_moments_go_on_from_a_checkpoint_to_the_last_bit(eight_bit, tmp_path):
    if eight_bit:
        pytest.importorskip("bitsandbytes")
    settings = OptimizerConfig(lr=0.05, ema=0.9, eight_bit=eight_bit)
    whole, part = small_model(), small_model()
    one = build_optimizer(whole.parameters(), settings)
    take_steps(whole, one, range(6))
    other = build_optimizer(part.parameters(), settings)
    take_steps(part, other, range(3))
    torch.save([part.state_dict(), other.state_dict()], tmp_path / "saved")
    again = small_model()
    with torch.no_grad():
        again.weight.zero_()
    resumed = build_optimizer(again.parameters(), settings)
    weights, state = torch.load(tmp_path / "saved", weights_only=True)
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    take_steps(again, resumed, range(3, 6))
    assert torch.equal(again.weight, whole.weight)
    found, expected = named_averages(again, resumed), named_averages(whole, one)
    assert found.keys() == expected.keys() == {"weight", "bias"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_average_needs_weights_with_digits():
    with pytest.raises(UserError, match=r"optimizer\.ema=0\.9: the trained weights are bfloat16"):
        build_optimizer(small_model(torch.bfloat16).parameters(), OptimizerConfig(ema=0.9))


@pytest.mark.parametrize("held", [set(), {1}])
def test_eight_bit_moments_follow_adamw_and_are_held_back(held):
    pytest.importorskip("bitsandbytes")
    model, twin = small_model(), small_model()
    settings = OptimizerConfig(lr=0.01, weight_decay=0.1)
    plain = build_optimizer(twin.parameters(), settings)
    optimizer = build_optimizer(model.parameters(), settings.model_copy(update={"eight_bit": True}))
    start = model.weight.detach().clone()
    for step in range(4):
        before = model.weight.detach().clone()
        take_steps(model, optimizer, [step], held)
        take_steps(twin, plain, [step], held)
        assert torch.equal(model.weight, before) == (step in held)
    assert {
        value.dtype
        for value in optimizer.state[model.weight].values()
        if isinstance(value, torch.Tensor)
    } >= {torch.uint8}
    moved, expected = model.weight - start, twin.weight - start
    similarity = torch.cosine_similarity(moved.flatten(), expected.flatten(), dim=0)
    assert similarity > 0.98
    assert moved.norm().item() == pytest.approx(expected.norm().item(), rel=0.05)


def test_without_bitsandbytes_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    settings = OptimizerConfig(eight_bit=True)
    with pytest.raises(UserError, match=r"optimizer\.eight_bit needs bitsandbytes.*quantised\]'"):
        build_optimizer(small_model().parameters(), settings)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimizer.ema=0.99", "model.dtype=bfloat16"], "model.dtype=bfloat16: the average"),
        (["optimizer.ema=0.99", "trainer.precision=bf16-true"], "precision=bf16-true: the"),
        (["optimizer.eight_bit=true", "trainer=fsdp"], "eight_bit=true with trainer=fsdp"),
        (["trainer.compile=true", "trainer=fsdp"], "compile=true with trainer=fsdp"),
        (["trainer.compile=true", "trainer.dropout=0.1"], "with trainer.dropout=0.1: masks"),
        (["model.lora.quantised=nf4"], "quantised=nf4: quantised weights are not trained"),
        (
            ["model=qwen7b", "model.weights=random", "model.lora={rank:2,export:adapter}"],
            "export=adapter with model.weights=random",
        ),
    ],
)
def test_what_does_not_go_together_is_said(overrides, says):
    config = compose(overrides)
    problems = [problem for rule in RULES for problem in rule(config)]
    assert any(says in problem for problem in problems), problems
    fits = compose(["optimizer.ema=0.99", "model.lora.rank=4", "model.dtype=bfloat16"])
    assert [problem for rule in RULES for problem in rule(fits)] == []
