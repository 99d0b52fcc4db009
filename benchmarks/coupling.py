"""What `trainer.coupling` costs and how far its gradient is from the whole batch's.

    python benchmarks/coupling.py [OVERRIDES]      writes benchmarks/results/coupling.md

Trains with exact coupling; every few steps the same weights and batch are given to all three
modes. Bias is ‖g − g_exact‖ / ‖g_exact‖ of one term's gradient in the parameters; cost is the
seconds of a step over those of `microbatch`, taken in turn in the same process.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
from machine import describe
from stepping import Stepper
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.files import write_text
from plot_exp.ops.scores import Request, Scores
from plot_exp.training.coupling import Mode, accumulate
from plot_exp.training.part import Part

MODES: tuple[Mode, ...] = ("exact", "carried", "microbatch")
CASES = {
    "`plot`, target anchored at the reference": ["loss=plot", "loss.plot.anchor=reference"],
    "`plot`, bare target": ["loss=plot", "loss.plot.anchor=none"],
    "`aot`": ["loss=aot"],
}
STEPS, EVERY, MICROBATCH = 60, 6, 4


class Bench(Stepper):
    """A policy in training, whose step can be taken in every mode."""

    def __init__(self, overrides: list[str]) -> None:
        super().__init__(
            ["logger=none", f"trainer.microbatch_size={MICROBATCH}", *overrides], STEPS
        )
        self.composite = self.module.composite
        self.reference = self.module.reference
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=self.config.optimizer.lr)

    def step(
        self, batches: list[Batch], mode: Mode, carried: list[Part] | None
    ) -> tuple[list[Part], Tensor, float]:
        """The parts of a step, its gradient as one vector, and its seconds."""
        self.optimizer.zero_grad()
        started = time.perf_counter()

        def score_reference(batch: Batch) -> Scores:
            with torch.no_grad():
                return self.reference(batch, Request())

        outcome = accumulate(
            batches,
            score_policy=lambda batch, *_: self.policy(batch, self.composite.request),
            score_reference=score_reference if self.composite.needs_reference else None,
            composite=self.composite,
            mode=mode,
            carried=carried,
            pull_back=lambda outputs, gradients: torch.autograd.backward(
                outputs, next(iter(gradients.values()))
            ),
        )
        seconds = time.perf_counter() - started
        flat = [
            torch.zeros_like(one).flatten() if one.grad is None else one.grad.flatten()
            for one in self.policy.parameters()
        ]
        return outcome.parts, torch.cat(flat), seconds


def measure(overrides: list[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Bias and seconds of every mode, one number each measured step."""
    bench = Bench(overrides)
    found: dict[str, tuple[list[float], list[float]]] = {mode: ([], []) for mode in MODES}
    carried: list[Part] | None = None
    for step in range(STEPS):
        batches = bench.loader.microbatches(step)
        if step % EVERY == EVERY - 1:
            gradients = {}
            for mode in MODES:
                _, gradients[mode], seconds = bench.step(batches, mode, carried)
                found[mode][1].append(seconds)
            exact = gradients["exact"]
            for mode in MODES:
                found[mode][0].append(float((gradients[mode] - exact).norm() / exact.norm()))
        carried, _, _ = bench.step(batches, "exact", None)
        bench.optimizer.step()
    return found


def main() -> None:
    """Measures every term and writes the table."""
    overrides = sys.argv[1:]
    rows = []
    for term, settings in CASES.items():
        found = measure([*settings, *overrides])
        for mode in MODES:
            bias, seconds = found[mode]
            ratios = [a / b for a, b in zip(seconds, found["microbatch"][1], strict=True)]
            rows.append(
                f"| {term} | `{mode}` | {statistics.median(bias):.3f} "
                f"({min(bias):.3f}–{max(bias):.3f}) | {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f}–{max(ratios):.2f}) |"
            )
    text = "\n".join(
        [
            "# Coupling: bias and cost",
            "",
            "Written by `python benchmarks/coupling.py`; see there for what is measured. "
            f"Tiny model, demo data, {STEPS} steps of 32 examples in microbatches of {MICROBATCH}, "
            f"every {EVERY}th step measured: median (least–most). "
            f"{describe(torch.get_num_threads())}.",
            "",
            "| term | coupling | bias of the gradient | step time over `microbatch` |",
            "|---|---|--:|--:|",
            *rows,
            "",
        ]
    )
    write_text(Path(__file__).parent / "results" / "coupling.md", text)
    print(text)


if __name__ == "__main__":
    main()
