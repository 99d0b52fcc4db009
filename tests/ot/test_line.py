"""Wasserstein-1 on a line against hand arithmetic, POT, SciPy and a linear program.

By hand: three tokens at z = 0, 1, 3, p = (½, ½, 0), q = (0, ½, ½). F_p − F_q = (½, ½) on the gaps
(1, 2), so W1 = ½·1 + ½·2 = 1.5: half of the mass goes from 0 to 3. The gradient is the reverse
cumulative sum of sign·gap: (3, 2, 0).
"""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from plot_exp.ot.line import Line, line_distance, line_positions, lines_distance
from plot_exp.ot.mass import restrict


def random_case(seed: int, size: int, ties: bool, zeros: bool) -> tuple[torch.Tensor, ...]:
    """Positions and two distributions; with ties positions repeat, with zeros masses vanish."""
    generator = np.random.default_rng(seed)
    z = generator.integers(0, 4, size) * 0.7 if ties else generator.normal(size=size)
    masses = generator.exponential(size=(2, size))
    if zeros:
        masses *= generator.random((2, size)) < 0.5
        masses[:, generator.integers(size)] += 0.1
    masses /= masses.sum(-1, keepdims=True)
    return torch.from_numpy(z), torch.from_numpy(masses[0]), torch.from_numpy(masses[1])


cases = st.builds(
    random_case, st.integers(0, 10**6), st.integers(1, 40), st.booleans(), st.booleans()
)


def test_worked_by_hand() -> None:
    line = line_positions(torch.tensor([3.0, 0.0, 1.0]))
    assert line.order.tolist() == [1, 2, 0]
    assert line.gaps.tolist() == [1.0, 2.0]
    assert line.positions().tolist() == [0.0, 1.0, 3.0]
    p = torch.tensor([0.0, 0.5, 0.5], requires_grad=True)
    distance = line_distance(p, torch.tensor([0.5, 0.0, 0.5]), line)
    assert distance.item() == pytest.approx(1.5, rel=1e-7)
    distance.backward()
    assert p.grad is not None
    assert p.grad.tolist() == [0.0, 3.0, 2.0]


@settings(deadline=None, max_examples=150)
@given(cases)
def test_equals_scipy_and_pot(case: tuple[torch.Tensor, ...]) -> None:
    z, p, q = case
    line = line_positions(z)
    expected = wasserstein_distance(z, z, p, q)
    assert pot.wasserstein_1d(
        z.numpy()[:, None], z.numpy()[:, None], p.numpy()[:, None], q.numpy()[:, None], p=1
    ) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(line_distance(p, q, line)) == pytest.approx(expected, rel=1e-10, abs=1e-14)
    single = float(line_distance(p.float(), q.float(), line))
    assert single == pytest.approx(expected, rel=1e-5, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(cases)
def test_equals_the_linear_program(case: tuple[torch.Tensor, ...]) -> None:
    z, p, q = case
    cost = (z[:, None] - z[None, :]).abs()
    expected = float(pot.emd2(p.numpy(), q.numpy(), cost.numpy()))
    assert float(line_distance(p, q, line_positions(z))) == pytest.approx(
        expected, rel=1e-8, abs=1e-12
    )


@settings(deadline=None, max_examples=60)
@given(cases, st.integers(0, 1000))
def test_invariances(case: tuple[torch.Tensor, ...], seed: int) -> None:
    z, p, q = case
    line = line_positions(z)
    value = line_distance(p, q, line)
    torch.testing.assert_close(line_distance(q, p, line), value, rtol=1e-12, atol=1e-15)
    assert float(line_distance(p, p, line)) == 0.0
    torch.testing.assert_close(line_distance(p, q, line_positions(-z)), value)
    torch.testing.assert_close(line_distance(p, q, line_positions(z + 2.5)), value)
    torch.testing.assert_close(line_distance(p, q, line_positions(3 * z)), 3 * value)
    shuffle = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        line_distance(p[shuffle], q[shuffle], line_positions(z[shuffle])), value
    )


@settings(deadline=None, max_examples=60)
@given(cases)
def test_gradient_is_a_kantorovich_potential(case: tuple[torch.Tensor, ...]) -> None:
    """It is 1-Lipschitz along the line, and p − q against it gives the distance back."""
    z, p, q = case
    p = p.clone().requires_grad_()
    value = line_distance(p, q, line_positions(z))
    (potential,) = torch.autograd.grad(value, p)
    torch.testing.assert_close(potential @ (p - q), value, rtol=1e-9, atol=1e-12)
    slack = (z[:, None] - z[None, :]).abs() - (potential[:, None] - potential[None, :]).abs()
    assert bool((slack >= -1e-9).all())


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_gradient_against_finite_differences(leading: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(*leading, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    q = torch.randn(9, generator=generator, dtype=torch.float64).softmax(-1).requires_grad_()
    z = torch.randn(9, generator=generator, dtype=torch.float64)
    z[4] = z[2]
    line = line_positions(z)
    assert torch.autograd.gradcheck(
        lambda a, b: line_distance(a.softmax(-1), b, line), (logits, q), atol=1e-8
    )
    (gradient,) = torch.autograd.grad(line_distance(logits.softmax(-1), q, line).sum(), logits)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(leading, dtype=torch.float64))


def test_mean_of_distributions_is_not_above_mean_of_distances() -> None:
    generator = torch.Generator().manual_seed(2)
    p = (2 * torch.randn(200, 30, generator=generator, dtype=torch.float64)).softmax(-1)
    q = torch.randn(30, generator=generator, dtype=torch.float64).softmax(-1)
    line = line_positions(torch.randn(30, generator=generator))
    each = line_distance(p, q, line)
    assert each.shape == (200,)
    assert float(line_distance(p.mean(0), q, line)) < float(each.mean())


def test_rows_in_blocks_equal_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    p = torch.randn(7, 50, generator=generator).softmax(-1).requires_grad_()
    q = torch.randn(50, generator=generator).softmax(-1)
    line = line_positions(torch.randn(50, generator=generator))
    whole = line_distance(p, q, line)
    (gradient,) = torch.autograd.grad(whole.sum(), p)
    monkeypatch.setattr("plot_exp.ot.line._BLOCK_ELEMENTS", 120)
    blocks = line_distance(p, q, line)
    (in_blocks,) = torch.autograd.grad(blocks.sum(), p)
    assert torch.equal(whole, blocks)
    assert torch.equal(gradient, in_blocks)


def test_single_precision_on_a_large_vocabulary() -> None:
    """152,064 tokens with p close to q: sums of that length keep 1e-5."""
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(152_064, generator=generator, dtype=torch.float64)
    p = logits.softmax(-1)
    q = (logits + 0.05 * torch.randn(152_064, generator=generator)).softmax(-1)
    z = torch.randn(152_064, generator=generator, dtype=torch.float64)
    line = line_positions(z)
    expected = wasserstein_distance(z, z, p, q)
    assert float(line_distance(p, q, line)) == pytest.approx(expected, rel=1e-10)
    assert float(line_distance(p.float(), q.float(), line)) == pytest.approx(expected, rel=1e-5)


def test_tokens_left_out_do_not_count() -> None:
    z = torch.tensor([0.0, float("nan"), 1.0, 5.0])
    allowed = torch.tensor([True, False, True, False])
    line = line_positions(z, allowed)
    assert line.order.tolist() == [0, 2]
    logits = torch.tensor([0.3, 2.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    p = restrict(logits.softmax(-1), allowed)
    assert p[1] == p[3] == 0
    q = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    value = line_distance(p, q, line)
    assert value.item() == pytest.approx(p[0].item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient[1] == pytest.approx(0)
    assert gradient[3] == pytest.approx(0)
    assert torch.autograd.gradcheck(
        lambda a: line_distance(restrict(a.softmax(-1), allowed), q, line), logits
    )


def test_one_token_and_half_precision() -> None:
    one = torch.ones(1, requires_grad=True)
    value = line_distance(one, torch.ones(1), line_positions(torch.tensor([2.0])))
    assert value.item() == 0
    value.backward()
    assert one.grad is not None
    assert one.grad.tolist() == [0.0]
    p = torch.tensor([0.25, 0.75], dtype=torch.bfloat16)
    value = line_distance(p, torch.tensor([0.75, 0.25]), line_positions(torch.tensor([0.0, 1.0])))
    assert value.dtype == torch.float32
    assert value.item() == 0.5


def test_max_takes_the_furthest_line_of_each_row() -> None:
    lines = (
        line_positions(torch.tensor([0.0, 1.0, 1.0])),
        line_positions(torch.tensor([0.0, 0.0, 3.0])),
    )
    p = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    q = torch.tensor([1.0, 0.0, 0.0])
    assert lines_distance(p, q, lines, "max").tolist() == [1.0, 0.0]
    assert lines_distance(p, q, lines, "mean").tolist() == [0.5, 0.0]
    (gradient,) = torch.autograd.grad(lines_distance(p, q, lines, "max").sum(), p)
    assert gradient.tolist() == [[-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="finite"):
        line_positions(torch.tensor([0.0, float("inf")]))
    with pytest.raises(ValueError, match="3 and 2 tokens"):
        line_distance(torch.ones(3) / 3, torch.ones(2) / 2, line_positions(torch.arange(3.0)))
    with pytest.raises(ValueError, match="shape"):
        line_positions(torch.arange(3.0), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one line"):
        lines_distance(torch.ones(1), torch.ones(1), (), "mean")


def test_empty_line() -> None:
    nothing = line_positions(torch.arange(3.0), torch.zeros(3, dtype=torch.bool))
    assert isinstance(nothing, Line)
    assert line_distance(torch.zeros(3), torch.zeros(3), nothing).item() == 0
