"""Time and peak memory of the head: plain log_softmax, logits kept, and logits in chunks.

    python benchmarks/head.py [--repetitions 5] [--threads 2]

Forward and backward from hidden states [N, D] to the sum of token log-probabilities, with and
without the mean distribution over the chosen half; values and gradients are compared first. The
forms take turns in one process for the time, which is wall time on a GPU and processor time on a
CPU, so that other work on the machine counts little. Each has a process of its own for the memory:
what a pass adds to the peak of the allocator on CUDA, of the process elsewhere (as Linux counts
it), the weight's own gradient included. Writes benchmarks/results/head.md, on a GPU head-cuda.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import describe
from torch import Tensor, nn

from plot_exp.data.collate import Batch, collate_padded
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.files import write_text
from plot_exp.ops.chunked import read_head
from plot_exp.ops.head import Head
from plot_exp.ops.memory import HeadPlan
from plot_exp.ops.readout import Readout
from plot_exp.ops.scores import Pool, Request, Side

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.bfloat16 if CUDA else torch.float32
# (V, N, D); the last is the width of a 7B model.
SIZES = (
    [(32_000, 4096, 4096), (152_064, 1024, 3584), (152_064, 4096, 3584), (152_064, 16384, 3584)]
    if CUDA
    else [
        (8_192, 512, 384),
        (8_192, 2048, 384),
        (32_000, 512, 384),
        (152_064, 256, 384),
        (8_192, 256, 3584),
    ]
)
FORMS = {"plain": "plain `log_softmax`", "auto": "`auto`", "chunks": "chunks of N/8"}
POOL: tuple[Side, Pool] = ("chosen", "batch")


@dataclass(frozen=True)
class Problem:
    """One size, with everything that a pass reads."""

    batch: Batch
    linear: nn.Linear
    hidden: Tensor
    weight: Tensor

    @staticmethod
    def of(vocab_size: int, positions: int, width: int) -> Problem:
        """Random numbers of a size; half of the positions are of chosen responses."""
        torch.manual_seed(0)
        ids = torch.randint(3, vocab_size, (2, positions // 2)).tolist()
        source = PreferenceExample(
            (Message("user", "?"),), ("a", "b"), "none", "none", Origin("none", 0)
        )
        item = TokenisedExample(source, (1,), tuple(map(tuple, ids)))
        linear = nn.Linear(width, vocab_size, bias=False, device=DEVICE, dtype=DTYPE)
        hidden = torch.randn(positions, width, device=DEVICE, dtype=DTYPE, requires_grad=True)
        weight = torch.randn(vocab_size, device=DEVICE)
        return Problem(collate_padded([item], 0).to(DEVICE), linear, hidden, weight)

    def step(self, form: str, pooled: bool) -> float:
        """One forward and backward pass; the loss."""
        self.hidden.grad = self.linear.weight.grad = None
        logps, mean = (self._plain if form == "plain" else self._ours)(form, pooled)
        loss = logps.mean()
        if mean is not None:
            loss = loss + (mean * self.weight).sum() / len(logps)
        loss.backward()
        return float(loss.detach())

    def _plain(self, form: str, pooled: bool) -> tuple[Tensor, Tensor | None]:
        logps = torch.log_softmax(self.linear(self.hidden), dim=-1, dtype=torch.float32)
        of_token = logps.gather(-1, self.batch.targets[:, None]).squeeze(-1)
        if not pooled:
            return of_token, None
        chosen = self.batch.responses.chosen[self.batch.response_of_token]
        return of_token, logps[chosen].exp().sum(0)

    def _ours(self, form: str, pooled: bool) -> tuple[Tensor, Tensor | None]:
        head = Head(self.linear, None, "auto" if form == "auto" else len(self.hidden) // 8)
        request = Request(frozenset({POOL}) if pooled else frozenset())
        readout = Readout.of(self.batch, request, head.adjustment, None)
        outputs = read_head(head, self.hidden, readout)
        return outputs["token_logps"], outputs.get(POOL)

    def gradients(self) -> list[Tensor]:
        """Of the last step."""
        assert self.hidden.grad is not None
        assert self.linear.weight.grad is not None
        return [self.hidden.grad.float().clone(), self.linear.weight.grad.float().clone()]


def check(problem: Problem) -> float:
    """The largest relative difference of any form's loss and gradients from the plain ones."""
    worst = 0.0
    for pooled in (False, True):
        loss = problem.step("plain", pooled)
        expected = problem.gradients()
        for form in ("auto", "chunks"):
            worst = max(worst, abs(problem.step(form, pooled) - loss) / abs(loss))
            for one, other in zip(problem.gradients(), expected, strict=True):
                worst = max(worst, float((one - other).norm() / other.norm()))
    return worst


def seconds(problem: Problem, form: str, pooled: bool) -> float:
    """Of one pass."""
    if not CUDA:
        started = time.process_time()
        problem.step(form, pooled)
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    problem.step(form, pooled)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(size: tuple[int, int, int], form: str) -> float:
    """MiB that a pass with the mean distribution adds to the peak, in this fresh process."""
    problem = Problem.of(*size)
    Problem.of(100, 16, 8).step(form, True)
    if CUDA:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        problem.step(form, True)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    before = resident("VmRSS:")
    problem.step(form, True)
    return (resident("VmHWM:") - before) / 2**10


def resident(name: str) -> int:
    """KiB of this process in main memory: now (VmRSS) or at its peak (VmHWM)."""
    rows = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(name))


def row(size: tuple[int, int, int], repetitions: int) -> list[str]:
    """The table's lines of one size."""
    problem = Problem.of(*size)
    difference = check(problem)
    if difference > (2e-2 if CUDA else 1e-4):
        raise SystemExit(f"{size}: the forms differ by {difference:.1e}")
    times: dict[tuple[str, bool], list[float]] = {
        (form, pooled): [] for form in FORMS for pooled in (False, True)
    }
    for _ in range(repetitions):
        for form, pooled in times:
            times[form, pooled].append(seconds(problem, form, pooled))
    kept = HeadPlan.of(size[1], size[0], DTYPE, DEVICE).keep
    del problem
    lines = []
    for form, name in FORMS.items():
        used = subprocess.run(
            [sys.executable, __file__, "--peak", form, "--size", *map(str, size)],
            check=True,
            capture_output=True,
            text=True,
        )
        label = f"{name} ({'kept' if kept else 'chunked'})" if form == "auto" else name
        cells = [
            *(f"{number:,}" for number in size),
            label,
            _spread(times[form, False]),
            _spread(times[form, True]),
            _added(times, form),
            f"{float(used.stdout):,.0f}",
            f"{difference:.0e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(values: list[float]) -> str:
    low, middle, high = (1000 * f(values) for f in (min, statistics.median, max))
    return f"{middle:,.1f} ({low:,.1f}–{high:,.1f})"


def _added(times: dict[tuple[str, bool], list[float]], form: str) -> str:
    ratios = [b / a - 1 for a, b in zip(times[form, False], times[form, True], strict=True)]
    return f"{statistics.median(ratios):+.1%}"


def main() -> None:
    """Measures every size and writes the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", choices=list(FORMS), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(peak(tuple(arguments.size), arguments.peak))
        return
    lines = []
    for size in SIZES:
        lines += row(size, arguments.repetitions)
        print(*lines[-len(FORMS) :], sep="\n", flush=True)
    text = "\n".join(
        [
            "# The head: time and memory",
            "",
            "Written by `python benchmarks/head.py`; see there for what is measured. "
            f"{describe(arguments.threads)}; {str(DTYPE).removeprefix('torch.')}; "
            f"{arguments.repetitions} repetitions in turn: median (least–most). `auto` is the "
            "default of `trainer.head_chunk`. Time is "
            f"{'wall' if CUDA else 'processor'} time. The last columns: what the mean distribution "
            "adds to the head's time (median of the ratios in turn), the peak memory of a pass "
            "with it, and the largest relative difference of the loss and the gradients from the "
            "plain form's.",
            "",
            "| V | N | D | form | ms | ms, with the mean distribution | added | MiB | difference |",
            "|--:|--:|--:|---|--:|--:|--:|--:|--:|",
            *lines,
            "",
        ]
    )
    name = "head-cuda.md" if CUDA else "head.md"
    write_text(Path(__file__).parent / "results" / name, text)
    print(text)


if __name__ == "__main__":
    main()
