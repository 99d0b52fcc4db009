"""What each layout costs: pairs a second of one CPU core, batches random and grouped by length.

    python benchmarks/layouts.py [--pairs 96]      writes benchmarks/results/layouts.md

Forward and backward pass of DPO with a live reference, without an optimizer step, on HH-RLHF
harmless-base (under `PLOT_EXP_DATA`, or from the hub) and on the demo set. The layouts take their
turns batch by batch; times are the process's own, so that other work on the machine counts little.
Their losses are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from machine import describe
from torch.nn.functional import logsigmoid

from plot_exp.config.composition import compose
from plot_exp.data.collate import Batch, collate
from plot_exp.data.packing import Layout
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.files import write_text
from plot_exp.models.policy import frozen_copy
from plot_exp.ops.scores import Request
from plot_exp.progress import shown
from plot_exp.workflows.prepare import Prepared, prepare

SETTINGS = {
    "HH-RLHF harmless-base; hidden 384, 8 layers, vocabulary 8,000; batches of 8": [
        "dataset=hh_rlhf",
        "dataset.subset=harmless-base",
        "dataset.max_length=512",
        "model.weights=random",
        "model.tiny={vocab_size: 8000, hidden_size: 384, layers: 8, heads: 6}",
        "trainer.batch_size=8",
    ],
    "demo; hidden 128, 4 layers, vocabulary 2,048; batches of 16": ["model.weights=random"],
}
LAYOUTS = {
    "`padded`": Layout(),
    "`shared`": Layout("shared"),
    "`packed` in rows": Layout("packed"),
    "`packed`, examples one by one": Layout("packed", joined=True),
}
BETA, TOLERANCE = 0.1, 1e-5


class Bench:
    """A policy and its frozen start."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.policy = prepared.start.policy
        self.reference = frozen_copy(self.policy)

    def loss(self, batch: Batch) -> torch.Tensor:
        """DPO."""
        sums = self.policy(batch, Request()).sums()
        with torch.no_grad():
            reference = self.reference(batch, Request()).sums()
        chosen, rejected = (sums - reference)[batch.responses.pairs].unbind(-1)
        return -logsigmoid(BETA * (chosen - rejected)).mean()

    def seconds(self, items: list[TokenisedExample], layout: Layout) -> float:
        """The process's own time for one batch, collation included."""
        started = time.process_time()
        self.policy.zero_grad(set_to_none=True)
        self.loss(collate(items, self.prepared.pad_id, layout)).backward()
        return time.process_time() - started


def table(overrides: list[str], pairs: int) -> list[str]:
    """One row a layout: pairs a second, random and grouped."""
    config = compose([*overrides, "logger=none"])
    bench = Bench(prepare(config, shown))
    items, size = bench.prepared.train[:pairs], config.trainer.batch_size
    random = [items[start : start + size] for start in range(0, len(items), size)]
    by_length = sorted(items, key=LAYOUTS["`shared`"].length)
    grouped = [by_length[start : start + size] for start in range(0, len(items), size)]
    first = [
        bench.loss(collate(random[0], bench.prepared.pad_id, layout)).item()
        for layout in LAYOUTS.values()
    ]
    spread = max(first) - min(first)
    if spread > TOLERANCE:
        raise SystemExit(f"the layouts' losses differ by {spread}")
    total = {(name, order): 0.0 for name in LAYOUTS for order in ("random", "grouped")}
    for batches in zip(random, grouped, strict=True):
        for name, layout in LAYOUTS.items():
            for order, batch in zip(("random", "grouped"), batches, strict=True):
                total[name, order] += bench.seconds(batch, layout)
    rate = {key: len(items) / seconds for key, seconds in total.items()}
    return [
        f"| {name} | {rate[name, 'random']:.2f} | {rate[name, 'grouped']:.2f} |" for name in LAYOUTS
    ]


def main() -> None:
    """Measures both settings and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=96)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    lines = [
        "# Layouts: pairs a second of one core",
        "",
        "Written by `python benchmarks/layouts.py`; see there for what is measured. "
        f"{pairs} pairs. {describe(1)}.",
    ]
    for title, overrides in SETTINGS.items():
        lines += ["", f"{title}:", "", "| layout | random batches | grouped by length |"]
        lines += ["|---|--:|--:|", *table(overrides, pairs)]
    write_text(Path(__file__).parent / "results" / "layouts.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
