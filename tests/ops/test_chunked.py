"""The chunked head gives what plain autograd over all logits gives, whatever the chunks."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.ops import memory
from plot_exp.ops.chunked import read_head
from plot_exp.ops.embedding import FrozenEmbedding
from plot_exp.ops.head import Head
from plot_exp.ops.readout import Readout
from plot_exp.ops.reference_states import ReferenceStates
from plot_exp.ops.scores import Pool, Request, Side

from plain_head import plain_outputs, pulled
from scoring_models import toy_batch

SIZE, WIDTH = 29, 6


class Adjusted:
    """A configuration whose logits are scaled and capped."""

    logit_scale = 0.7
    final_logit_softcapping = 2.0


def everything() -> Request:
    vectors = torch.randn(SIZE, 4, generator=torch.Generator().manual_seed(2))
    vectors[4] = 0
    return Request(
        frozenset((side, pool) for side in get_args(Side) for pool in get_args(Pool)),
        frozenset({"entropy", "reference_kl", "label_cost"}),
        FrozenEmbedding(vectors.double()),
    )


class Case:
    """A head, hidden states and a reference for the toy batch."""

    def __init__(
        self,
        *,
        dtype: torch.dtype = torch.float64,
        bias: bool = True,
        config: Any = None,
        request: Request | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.batch: Batch = toy_batch()[0]
        count = len(self.batch.targets)
        self.linear = nn.Linear(WIDTH, SIZE, bias=bias).to(dtype)
        self.hidden = torch.randn(count, WIDTH).to(dtype).requires_grad_()
        self.head = Head(self.linear, config)
        other = Head(nn.Linear(WIDTH, SIZE).to(dtype), config)
        self.reference = ReferenceStates(torch.randn(count, WIDTH).to(dtype), other)
        self.request = everything() if request is None else request

    @property
    def inputs(self) -> list[Tensor]:
        return [self.hidden, *self.linear.parameters()]

    def chunked(self, chunk: Any) -> list[Tensor]:
        self.head.chunk = chunk
        readout = Readout.of(self.batch, self.request, self.head.adjustment, self.reference)
        return list(read_head(self.head, self.hidden, readout).values())

    def plain(self) -> list[Tensor]:
        reference = self.reference.logits(slice(0, len(self.hidden)))
        logits = self.head(self.hidden)
        with torch.autocast("cpu", enabled=False):
            return plain_outputs(logits, self.batch, self.request, reference)


def assert_same(case: Case, chunk: Any, **tolerance: float) -> None:
    expected, found = case.plain(), case.chunked(chunk)
    torch.testing.assert_close(found, expected, **tolerance)
    torch.testing.assert_close(
        pulled(found, case.inputs), pulled(expected, case.inputs), **tolerance
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("config", [None, Adjusted()])
@pytest.mark.parametrize("chunk", [1, 2, 7, 20, 1000, "auto"])
def test_every_output_and_its_gradient_are_those_of_plain_autograd(
    chunk: Any, config: Any, bias: bool
) -> None:
    assert len(toy_batch()[0].targets) == 20
    assert_same(Case(bias=bias, config=config), chunk, rtol=1e-11, atol=1e-11)
    assert_same(Case(bias=bias, config=config, dtype=torch.float32), chunk, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("key", sorted(everything().distributions) + sorted(everything().tokens))
def test_each_output_alone(key: Any) -> None:
    of = everything()
    request = (
        Request(frozenset({key}))
        if isinstance(key, tuple)
        else Request(tokens=frozenset({key}), embedding=of.embedding)
    )
    assert_same(Case(request=request), 4, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("config", [None, Adjusted()])
def test_gradients_are_finite_differences(config: Any) -> None:
    case = Case(config=config)
    case.linear.requires_grad_(False)
    wanted = [case.hidden.detach().requires_grad_()]

    def outputs(hidden: Tensor) -> tuple[Tensor, ...]:
        case.hidden = hidden
        return tuple(case.chunked(5))

    assert torch.autograd.gradcheck(outputs, wanted)


def test_chunks_and_blocks_of_any_size_agree_where_logits_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", 5 * SIZE * 8)
    monkeypatch.setitem(memory.BLOCK_BYTES, "cpu", 2 * SIZE * 8)
    plan = memory.HeadPlan.of(20, SIZE, torch.float64, torch.device("cpu"))
    assert plan == memory.HeadPlan(5, True, 2 * torch.get_num_threads())
    assert_same(Case(config=Adjusted()), "auto", rtol=1e-11, atol=1e-11)


def test_free_memory_decides_what_is_kept_and_no_bit_of_a_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", 5 * SIZE * 4)
    monkeypatch.setattr(memory, "SMALL_BYTES", 0)
    results = []
    for free in (0, 10**12):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        plan = memory.HeadPlan.of(20, SIZE, torch.float32, torch.device("cpu"))
        assert plan.chunk == 5
        assert plan.keep == (free > 0)
        case = Case(dtype=torch.float32)
        outputs = case.chunked("auto")
        with torch.no_grad():
            results.append(case.chunked("auto"))
        results.append(outputs)
        results.append(pulled(outputs, case.inputs))
    first, second = results[:3], results[3:]
    for one, other in [*zip(first, second, strict=True), (first[0], first[1])]:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("chunk", [4, 1000])
def test_the_graph_may_be_pulled_back_twice(chunk: int) -> None:
    case = Case()
    outputs = case.chunked(chunk)
    first = pulled(outputs, case.inputs, retain_graph=True)
    torch.testing.assert_close(pulled(outputs, case.inputs), first, rtol=0, atol=0)


def test_outputs_without_a_gradient_and_frozen_weights_are_left_out() -> None:
    case = Case(bias=False)
    case.linear.requires_grad_(False)
    logps, *_ = case.chunked(4)
    logps.sum().backward()
    assert case.linear.weight.grad is None
    expected, *_ = case.plain()
    torch.testing.assert_close(
        case.hidden.grad, torch.autograd.grad(expected.sum(), case.hidden)[0]
    )


def test_tokens_of_no_probability_give_zeros_not_nan() -> None:
    case = Case(request=Request(frozenset({("chosen", "batch")}), frozenset({"entropy"})))
    with torch.no_grad():
        case.linear.bias[3] = -torch.inf
    outputs = case.chunked(4)
    assert outputs[-1][3] == 0
    assert all(bool(one.isfinite().all()) for one in pulled(outputs, case.inputs))


@pytest.mark.parametrize("chunk", [3, 1000])
def test_mixed_precision_is_that_of_a_plain_head(chunk: int) -> None:
    case = Case(dtype=torch.float32)
    exact = pulled(case.plain(), case.inputs)
    with torch.autocast("cpu", torch.bfloat16):
        expected = case.plain()
        found = case.chunked(chunk)
    assert {one.dtype for one in found} == {torch.float32}
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain, ours = pulled(expected, case.inputs), pulled(found, case.inputs)
    assert [one.dtype for one in ours] == [torch.float32] * 3
    for one, other, truth in zip(ours, plain, exact, strict=True):
        assert (one - truth).norm() < max(1.5 * (other - truth).norm(), 1e-3 * truth.norm())


def test_half_precision_weights_add_up_many_chunks_in_single() -> None:
    case = Case(dtype=torch.float32, bias=False)
    exact = pulled(case.plain(), case.inputs)[1]
    half = Case(dtype=torch.bfloat16, bias=False)
    single = pulled(half.chunked(1000), half.inputs)[1]
    many = pulled(half.chunked(1), half.inputs)[1]
    assert many.dtype == torch.bfloat16
    assert (many - exact).norm() < 1.2 * (single - exact).norm()
