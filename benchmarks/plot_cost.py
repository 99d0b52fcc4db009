"""What PLOT adds to a step of DPO: time and peak memory, in turn in one process each.

    python benchmarks/plot_cost.py [--steps 40] [OVERRIDES]

Both train the same random model, whose trunk is as large beside its head as a 7B model's, on the
same batches. Steps are taken in turn, and the ratio is that of neighbours; memory is that of two
whole runs. Writes benchmarks/results/plot_cost.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from machine import describe
from stepping import Stepper

from plot_exp.files import write_text

HERE = Path(__file__).parent
# 8 layers of width 384 hold 18.9 M weights, 12 times a head of 4,096 rows; Qwen2.5-7B's ratio.
SHAPE = (
    "model.weights=random",
    "model.tiny.hidden_size=384",
    "model.tiny.layers=8",
    "model.tiny.heads=6",
    "model.tiny.vocab_size=4096",
)
SHARED = (*SHAPE, "trainer.batch_size=16", "eval=none", "eval.preferences=false", "logger=none")
ACCUMULATED = "trainer.microbatch_size=4"
CASES = {
    "microbatch = batch, `line`": (),
    "microbatch = batch, `sliced`": ("loss.plot.transport=sliced",),
    "microbatch = batch, `dual`": ("loss.plot.transport=dual",),
    "4 microbatches, `exact` (two passes)": (ACCUMULATED,),
    "4 microbatches, `carried`": (ACCUMULATED, "trainer.coupling=carried"),
}
WARM_UP = 3


def main() -> None:
    """Measures every case and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cases", type=int, nargs="*", help="rows to measure, from 0")
    arguments, overrides = parser.parse_known_args()
    names = list(CASES) if arguments.cases is None else [list(CASES)[i] for i in arguments.cases]
    with tempfile.TemporaryDirectory() as folder:
        shared = [*SHARED, f"cache_dir={folder}/cache", *overrides]
        rows = [_row(name, shared, arguments.steps) for name in names]
        memory = _memory(shared, folder)
    text = "\n".join(
        [
            "# What PLOT adds to a step of DPO",
            "",
            "Written by `python benchmarks/plot_cost.py`; see there for what is measured. Random "
            "Qwen2 model, hidden 384, 8 layers, vocabulary 4,096, demo data, 16 pairs a step, "
            f"{arguments.steps} steps in turn after {WARM_UP} of warming up: medians (least–most "
            "of the middle half).",
            "",
            f"{describe(torch.get_num_threads())}.",
            "",
            "| case | `dpo`, s a step | `dpo+plot`, s a step | ratio |",
            "|---|--:|--:|--:|",
            *rows,
            "",
            memory,
            "",
        ]
    )
    write_text(HERE / "results" / "plot_cost.md", text)
    print(text)


def _row(name: str, shared: list[str], steps: int) -> str:
    own = list(CASES[name])
    alone = [text for text in own if not text.startswith("loss.")]
    runs = [
        Stepper([*shared, "loss=dpo", *alone], steps + WARM_UP),
        Stepper([*shared, "loss=dpo+plot", *own], steps + WARM_UP),
    ]
    seconds: tuple[list[float], list[float]] = ([], [])
    for step in range(steps + WARM_UP):
        batches = runs[0].loader.microbatches(step)
        # Who goes first changes from step to step.
        for place in (0, 1) if step % 2 else (1, 0):
            taken = runs[place].seconds(batches)
            if step >= WARM_UP:
                seconds[place].append(taken)
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    cells = [_middle(one, ".3f") for one in (*seconds, ratios)]
    row = f"| {name} | {' | '.join(cells)} |"
    print(row, flush=True)
    return row


def _middle(values: list[float], form: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


def _memory(shared: list[str], folder: str) -> str:
    peaks = {}
    for loss in ("dpo", "dpo+plot"):
        target = Path(folder) / loss
        settings = [*shared, f"loss={loss}", "trainer.max_steps=6", f"output_dir={target}"]
        command = [sys.executable, "-m", "plot_exp", *settings]
        subprocess.run(command, check=True, capture_output=True)
        (metrics,) = target.glob("*/*/metrics.json")
        found = json.loads(metrics.read_text(encoding="utf-8"))
        peaks[loss] = found["train/peak_memory_gb"]
    ratio = peaks["dpo+plot"] / peaks["dpo"]
    return (
        f"Peak memory of whole runs: `dpo` {peaks['dpo']:.2f} GB, `dpo+plot` "
        f"{peaks['dpo+plot']:.2f} GB, ratio {ratio:.3f}."
    )


if __name__ == "__main__":
    main()
