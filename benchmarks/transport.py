"""What a transport costs on a vocabulary of a 7B model, value and gradient.

    python benchmarks/transport.py      writes benchmarks/results/transport.md

Embeddings are random (256 dimensions), p is Zipf-like and drifts to a sparse target under fresh
noise, as from batch to batch. Each form is timed with its gradient in p over several steps of that
drift, the first ones left out; potentials are warm. The share of a training step is taken on the
same processor: the arithmetic of a 7B model's step over the speed that a matrix product reaches
here.
"""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plot_exp.files import write_text
from plot_exp.ot.costs import build_cost
from plot_exp.ot.dual import DualState, DualTransport
from plot_exp.ot.geometry import build_transport
from plot_exp.report.markdown import table

SIZE, DIMENSION, STEPS, LEFT_OUT, LIMIT = 152_064, 256, 14, 3, 2_048
# One thread and its processor time, so that what else the machine does is not in the figures.
THREADS = 1
# Qwen2.5-7B, and a step of 8,192 tokens: forward, backward (6 FLOP a parameter and token) and a
# reference forward (2); the attention's own arithmetic is left out, which makes the share larger.
PARAMETERS, TOKENS, FLOPS_A_TOKEN = 7.6e9, 8_192, 8


def run_of_distributions() -> tuple[Tensor, list[Tensor]]:
    """A sparse target [V] and p [V] of several steps."""
    draw = torch.Generator().manual_seed(0)
    level = -1.1 * torch.log(torch.arange(SIZE) + 3.0) + 0.8 * torch.randn(SIZE, generator=draw)
    target = (level.softmax(0) * torch.randn(SIZE, generator=draw)).clamp_min(0)
    target /= target.sum()
    steps = []
    for step in range(STEPS):
        noisy = (level + 0.08 * torch.randn(SIZE, generator=draw)).softmax(0)
        steps.append((1 - 0.01 * step) * noisy + 0.01 * step * target)
    return target, steps


def milliseconds(form: Callable[[Tensor], Tensor], steps: list[Tensor]) -> list[float]:
    """Of value and gradient at every step."""
    found = []
    for p in steps:
        leaf = p.clone().requires_grad_()
        started = time.process_time()
        form(leaf).backward()
        found.append(1e3 * (time.process_time() - started))
    return found[LEFT_OUT:]


def matrix_flops() -> float:
    """Multiplications and additions a second of a matrix product in fp32, the best of several."""
    a = torch.randn(2_048, 2_048)
    best = 0.0
    for _ in range(8):
        started = time.process_time()
        a @ a
        best = max(best, 2 * 2_048**3 / (time.process_time() - started))
    return best


def main() -> None:
    """Times every form and writes the table."""
    torch.set_num_threads(THREADS)
    target, steps = run_of_distributions()
    embedding = torch.randn(SIZE, DIMENSION, generator=torch.Generator().manual_seed(1))
    step_seconds = PARAMETERS * TOKENS * FLOPS_A_TOKEN / matrix_flops()
    rows = []

    def add(name: str, times: list[float], once: float) -> None:
        share = statistics.median(times) / 1e3 / step_seconds
        rows.append(
            [
                name,
                f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})",
                f"{once:.1f}",
                f"{100 * share:.4f} %",
            ]
        )
        print(rows[-1], flush=True)

    mass = steps[0]
    kinds: dict[str, dict[str, Any]] = {
        "line": {},
        "sliced, 64 directions": {"transport": "sliced"},
    }
    for name, options in kinds.items():
        started = time.process_time()
        transport = build_transport(embedding, token_mass=mass, target=target, **options)
        once = time.process_time() - started
        times = milliseconds(lambda p, form=transport: form.distance(p, target), steps)  # type: ignore[misc]
        add(name, times, once)
    for shape, parameter in (("linear", 1.0), ("power", 4.0)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        cost = build_cost(embedding, shape=shape, parameter=parameter, target=target)
        dual = DualTransport(cost, target, limit=LIMIT)
        state = dual.step(steps[0], DualState.start(SIZE)).state
        once = time.process_time() - started
        carried = [state]

        def form(
            p: Tensor, dual: DualTransport = dual, carried: list[DualState] = carried
        ) -> Tensor:
            step = dual.step(p, carried[0], with_upper=True)
            carried[0] = step.state
            return step.distance

        times = milliseconds(form, steps)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024**2
        label = "raw" if shape == "linear" else f"power {parameter:g}"
        add(f"dual, warm, {LIMIT:,} a side, {label}", times, once)
        rows[-1][2] += f" (memory {grown:+.1f} GiB)"
    speed = PARAMETERS * TOKENS * FLOPS_A_TOKEN / step_seconds / 1e9
    columns = ["form", "ms a step", "once, s", "share of a 7B step of 8,192 tokens, this CPU"]
    text = "\n\n".join(
        [
            "# Transport: time of value and gradient",
            f"Written by `python benchmarks/transport.py`. V = {SIZE:,}, {DIMENSION} dimensions, "
            f"{STEPS - LEFT_OUT} steps measured: median (least to most) of the processor time of "
            "one thread, so that other work on the machine is not in it. The dual's time holds "
            "both bounds. Once: seconds before the first step, its cold start included. torch "
            f"{torch.__version__}, {platform.machine()}.",
            table(columns, rows, 1),
            f"The share assumes {PARAMETERS:.1e} parameters, {FLOPS_A_TOKEN} FLOP for each and "
            f"token, and the {speed:.0f} GFLOP/s that a matrix product reached on one thread: "
            f"{step_seconds:,.0f} s a step. Nothing is weighted by mass in this table.",
        ]
    )
    write_text(Path(__file__).parent / "results" / "transport.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
