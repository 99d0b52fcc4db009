"""Lines, paths, slices and scales from embeddings, and the inequalities between the forms."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plot_exp.ot.geometry import (
    build_transport,
    line_spread,
    normalised,
    positions,
    principal_direction,
)
from plot_exp.ot.line import line_distance, line_positions
from plot_exp.ot.path import path_line
from plot_exp.ot.sliced import project, random_directions, sliced_lines


def vocabulary(
    seed: int, size: int = 20, dimension: int = 5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(size, dimension, generator=generator, dtype=torch.float64)
    embedding *= torch.linspace(3, 1, dimension, dtype=torch.float64)
    p = (2 * torch.randn(size, generator=generator, dtype=torch.float64)).softmax(-1)
    q = (2 * torch.randn(size, generator=generator, dtype=torch.float64)).softmax(-1)
    return embedding, p, q


def exact(embedding: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> float:
    cost = torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
    return float(pot.emd2(p.numpy(), q.numpy(), cost.numpy()))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 8))
def test_lower_and_upper_bounds_of_exact_transport(seed: int, size: int, dimension: int) -> None:
    embedding, p, q = vocabulary(seed, size, dimension)
    reach = exact(embedding, p, q) + 1e-9
    raw = {"scale": "raw", "token_mass": p + q, "seed": seed, "directions": 8}
    lower = [
        build_transport(embedding, line="principal", **raw),
        build_transport(embedding, line="principal_unweighted", **raw),
        build_transport(embedding, line="norm", **raw),
        build_transport(embedding, line="random", **raw),
        build_transport(embedding, transport="sliced", **raw),
        build_transport(embedding, transport="sliced", sliced_reduction="max", **raw),
    ]
    distances = [float(form.distance(p, q)) for form in lower]
    distances.append(float(torch.linalg.vector_norm(embedding.T @ (p - q))))
    assert max(distances) <= reach
    assert distances[4] <= distances[5] + 1e-12
    path = build_transport(embedding, transport="path", scale="raw")
    assert float(path.distance(p, q)) >= reach - 2e-9


def test_in_one_dimension_the_line_is_exact() -> None:
    embedding, p, q = vocabulary(5, dimension=1)
    for line in ("principal_unweighted", "random"):
        form = build_transport(embedding, line=line, scale="raw")
        assert float(form.distance(p, q)) == pytest.approx(exact(embedding, p, q), rel=1e-9)


def test_path_by_hand_and_against_the_linear_program() -> None:
    embedding = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    assert path_line(embedding).gaps.tolist() == [5.0, 5.0]
    assert path_line(embedding, norm=1.0).gaps.tolist() == [7.0, 7.0]
    ends = torch.tensor([True, False, True])
    assert path_line(embedding, allowed=ends).gaps.tolist() == [0.0]
    embedding, p, q = vocabulary(6)
    z = path_line(embedding, block=3).positions()
    cost = (z[:, None] - z[None, :]).abs()
    expected = float(pot.emd2(p.numpy(), q.numpy(), cost.numpy()))
    assert float(line_distance(p, q, path_line(embedding))) == pytest.approx(expected, rel=1e-9)


def test_permuting_tokens_changes_only_path_and_token_id() -> None:
    embedding, p, q = vocabulary(7)
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(8))

    def moved(**options: object) -> float:
        before = build_transport(embedding, token_mass=p, target=q, **options)
        after = build_transport(embedding[order], token_mass=p[order], target=q[order], **options)
        value = float(before.distance(p, q))
        return abs(float(after.distance(p[order], q[order])) / value - 1)

    for line in ("principal", "principal_unweighted", "norm", "random"):
        assert moved(line=line) < 1e-10
    assert moved(transport="sliced") < 1e-10
    assert moved(line="token_id") > 1e-3
    assert moved(transport="path") > 1e-3


def test_principal_direction_against_the_eigenvectors_of_numpy() -> None:
    embedding, p, _ = vocabulary(9)
    direction = principal_direction(embedding, 7 * p, block=6)
    covariance = np.cov(embedding.numpy().T, aweights=p.numpy(), ddof=0)
    expected = np.linalg.eigh(covariance)[1][:, -1]
    expected *= np.sign(expected[np.abs(expected).argmax()])
    np.testing.assert_allclose(direction.numpy(), expected, atol=1e-12)
    assert direction[direction.abs().argmax()] > 0
    flipped = principal_direction(-embedding, p)
    torch.testing.assert_close(flipped, direction, rtol=1e-9, atol=1e-12)


def test_weighting_the_principal_component_follows_the_mass() -> None:
    """Two tokens that matter differ along x; many that never occur differ along y."""
    embedding = torch.zeros(12, 2)
    embedding[0, 0] = 1.0
    embedding[2:, 1] = torch.linspace(-9, 9, 10)
    mass = torch.zeros(12)
    mass[:2] = 0.5
    assert principal_direction(embedding, mass).tolist() == pytest.approx([1.0, 0.0])
    whole = principal_direction(embedding, torch.ones(12))
    assert whole.abs().tolist() == pytest.approx([0.0, 1.0], abs=1e-2)


def test_token_id_has_unit_gaps() -> None:
    embedding, p, q = vocabulary(10)
    form = build_transport(embedding, line="token_id", scale="raw")
    expected = (p - q).cumsum(0)[:-1].abs().sum()
    torch.testing.assert_close(form.distance(p, q), expected)


@pytest.mark.parametrize("transport", ["line", "path", "sliced"])
def test_spread_makes_the_scale_of_the_embeddings_irrelevant(transport: str) -> None:
    embedding, p, q = vocabulary(11)
    options = {"transport": transport, "token_mass": p, "target": q}
    small = build_transport(embedding, **options)
    large = build_transport(1000 * embedding, **options)
    assert line_spread(small.lines, q) == pytest.approx(1, rel=1e-12)
    torch.testing.assert_close(small.distance(p, q), large.distance(p, q))


def test_spread_is_the_standard_deviation_under_the_target() -> None:
    embedding, p, q = vocabulary(12)
    z = positions(embedding, "random", seed=3)
    deviation = np.sqrt(np.cov(z.numpy(), aweights=q.numpy(), ddof=0))
    scaled = build_transport(embedding, line="random", target=q, seed=3)
    raw = build_transport(embedding, line="random", scale="raw", seed=3)
    assert float(raw.distance(p, q) / scaled.distance(p, q)) == pytest.approx(deviation, rel=1e-10)


def test_slices_are_the_mean_and_maximum_of_their_lines() -> None:
    embedding, p, q = vocabulary(13)
    directions = random_directions(5, 7, seed=0)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(7, dtype=torch.float64))
    assert torch.equal(directions, random_directions(5, 7, seed=0))
    assert not torch.equal(directions, random_directions(5, 7, seed=1))
    each = torch.stack([line_distance(p, q, line_positions(embedding @ way)) for way in directions])
    for reduction, expected in (("mean", each.mean()), ("max", each.max())):
        form = build_transport(
            embedding,
            transport="sliced",
            directions=7,
            scale="raw",
            sliced_reduction=reduction,
        )
        torch.testing.assert_close(form.distance(p, q), expected)
        leaf = p.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda a, form=form: form.distance(a, q), leaf)
    for ours, alone in zip(sliced_lines(embedding, directions, block=2), each, strict=True):
        torch.testing.assert_close(line_distance(p, q, ours), alone)


def test_sliced_against_pot() -> None:
    """POT's own sliced distance on uniform samples, given the same projections."""
    embedding, _, _ = vocabulary(14)
    directions = random_directions(5, 30, seed=2)
    p, q = torch.zeros(2, 20, dtype=torch.float64)
    p[:10], q[10:] = 0.1, 0.1
    expected = pot.sliced_wasserstein_distance(
        embedding[:10].numpy(), embedding[10:].numpy(), projections=directions.T.numpy(), p=1
    )
    form = build_transport(embedding, transport="sliced", directions=30, scale="raw", seed=2)
    assert float(form.distance(p, q)) == pytest.approx(float(expected), rel=1e-9)


def test_projection_in_blocks() -> None:
    embedding, _, _ = vocabulary(15)
    directions = random_directions(5, 3, seed=0)
    torch.testing.assert_close(project(embedding, directions, block=4), embedding @ directions.T)


def test_normalised_rows() -> None:
    embedding = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(normalised(embedding), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    embedding, p, q = vocabulary(16)
    form = build_transport(embedding, normalise=True, scale="raw", token_mass=p)
    again = build_transport(normalised(embedding), scale="raw", token_mass=p)
    torch.testing.assert_close(form.distance(p, q), again.distance(p, q))


def test_excluded_tokens_leave_no_trace() -> None:
    """Rows beyond the tokenizer may hold anything, not-a-number included."""
    embedding, p, q = vocabulary(17)
    padded = torch.cat([embedding, torch.full((4, 5), float("nan"), dtype=torch.float64)])
    allowed = torch.arange(24) < 20
    zeros = torch.zeros(4, dtype=torch.float64)
    p_padded, q_padded = torch.cat([p, zeros]), torch.cat([q, zeros])
    mass = torch.cat([p, zeros + 1])
    for options in (
        {"line": "principal"},
        {"line": "principal_unweighted"},
        {"line": "norm"},
        {"line": "random"},
        {"line": "token_id"},
        {"transport": "path"},
        {"transport": "sliced"},
    ):
        whole = build_transport(embedding, token_mass=p, target=q, **options)
        part = build_transport(padded, token_mass=mass, target=q_padded, allowed=allowed, **options)
        torch.testing.assert_close(part.distance(p_padded, q_padded), whole.distance(p, q))


@pytest.mark.parametrize(
    "line", ["principal", "principal_unweighted", "norm", "random", "token_id"]
)
def test_a_vocabulary_of_one_token_has_distance_zero(line: str) -> None:
    one = torch.ones(1)
    form = build_transport(torch.randn(1, 3), line=line, token_mass=one, target=one)
    assert form.distance(one, one).item() == 0


def test_bad_input_is_named() -> None:
    embedding, p, q = vocabulary(18)
    with pytest.raises(ValueError, match="needs the tokens' mass"):
        build_transport(embedding, scale="raw")
    with pytest.raises(ValueError, match="needs the target"):
        build_transport(embedding, line="norm")
    with pytest.raises(ValueError, match="every norm is 1"):
        build_transport(embedding, line="norm", normalise=True, scale="raw")
    with pytest.raises(ValueError, match="no spread"):
        build_transport(embedding, line="norm", target=torch.eye(20, dtype=torch.float64)[3])
    with pytest.raises(ValueError, match="same"):
        principal_direction(torch.full((4, 3), 0.1), torch.ones(4))
    with pytest.raises(ValueError, match="no token has mass"):
        principal_direction(embedding, torch.zeros(20))
    with pytest.raises(ValueError, match="token 2 is not finite"):
        build_transport(embedding.index_fill(0, torch.tensor([2]), float("inf")), scale="raw")
    with pytest.raises(ValueError, match="not 'dual'"):
        build_transport(embedding, transport="dual", scale="raw")  # type: ignore[arg-type]
    assert p.sum() == pytest.approx(q.sum())


PEAK = """
import torch
from plot_exp.ot.geometry import build_transport

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

embedding = torch.randn(200_000, 256)
mass = torch.rand(200_000)
build_transport(embedding[:9_000], token_mass=mass[:9_000], target=mass[:9_000])
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
build_transport(embedding, token_mass=mass, target=mass)
print((status("VmHWM") - before) / embedding.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_copy_of_the_embedding_is_made_for_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout) < 1
