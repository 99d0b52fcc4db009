"""Training at the shape of Qwen2.5-7B with random weights on one CUDA GPU: speed, use and memory.

    python benchmarks/gpu.py [--cases full full_8bit lora] [--lengths 512 1024] [--peak-tflops X]
    python benchmarks/gpu.py --small       a tiny shape on the CPU, to see that it runs

bf16 weights, activation checkpointing, cached reference, one microbatch a step. Every weight is
trained, with moments in bf16 or in eight bits (bitsandbytes), or LoRA of rank 16 on all linear
layers. `dpo` and `dpo+plot` take their turns on the same batches, policy and optimizer, and the
ratio is that of neighbours. On a GPU each case has a process of its own. No download: configuration
and tokenizer are made here. The planner is asked first: what it says does not fit is not run, and
its row says so. Writes benchmarks/results/gpu.md, or gpu_small.md with --small.

Model flops a step are those that the mathematics needs, whatever is computed twice: of each
position in the rows (a prompt counts once) 2 a weight of the layers in the forward pass, and as
much for the gradient in the activations and again for that in the weights, which LoRA's frozen
ones spare; the head's likewise at the scored positions alone; attention over pairs that see one
another. Utilisation is their rate in the GPU's dense bf16 peak.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe
from random_model import write_start
from stepping import Stepper

from plot_exp.config.composition import compose
from plot_exp.data.collate import Batch
from plot_exp.files import write_text
from plot_exp.planner.plan import make_plan
from plot_exp.training.metrics import peak_memory
from plot_exp.workflows.plan import read_data

CUDA = torch.cuda.is_available()
# Dense bf16 TFLOP/s by the makers' data sheets.
PEAKS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0}
QWEN_7B = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32_768,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}
SMALL = QWEN_7B | {
    "vocab_size": 2_048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CASES = {
    "full": (),
    "full_8bit": ("optimizer.eight_bit=true",),
    "lora": ("model.lora.rank=16", "model.lora.target_modules=all-linear"),
}
LOSSES = ("dpo", "dpo+plot")
WARM_UP = 3
# Phases of a run that no step is in.
OUTSIDE = ("loading", "validation", "answers", "filling")


@dataclass(frozen=True)
class Flops:
    """Model flops of a step.

    Attributes:
        layers, head: weights.
        attention: flops of a pair of positions in the forward pass, over all layers.
        frozen: gradients go through the weights but not to them.
    """

    layers: int
    head: int
    attention: float
    frozen: bool

    @staticmethod
    def of(model: Any, frozen: bool) -> Flops:
        """Those of a model."""
        config = model.config
        named = [(name, one.numel()) for name, one in model.named_parameters()]
        layers = sum(count for name, count in named if ".layers." in name)
        head = model.get_output_embeddings().weight.numel()
        # Scores and their product with the values, 2 flops a multiplication each.
        pair = 4.0 * config.hidden_size * config.num_hidden_layers
        return Flops(layers, head, pair, frozen)

    def __call__(self, batch: Batch) -> float:
        """Of a forward and a backward pass over a batch."""
        passes = 2 if self.frozen else 3
        pairs = 0.0
        for item in batch.sources:
            prompt = len(item.prompt_ids)
            pairs += prompt * (prompt + 1) / 2
            for ids in item.response_ids:
                pairs += len(ids) * prompt + len(ids) * (len(ids) + 1) / 2
        weights = self.layers * batch.tokens + self.head * len(batch.targets)
        return passes * 2.0 * weights + 3 * self.attention * pairs


def overrides_of(case: str, folder: Path, length: int, arguments: argparse.Namespace) -> list[str]:
    """What is typed for a case, on a model and data that are written into the folder."""
    write_start(folder, SMALL if arguments.small else QWEN_7B, length, 2 * arguments.batch)
    return [
        "model=hf",
        f"model.name={folder}",
        "model.weights=random",
        "model.dtype=bfloat16",
        "dataset=jsonl",
        f"dataset.path={folder}/pairs.jsonl",
        "dataset.validation_limit=1",
        f"dataset.max_length={length}",
        "trainer=cpu" if arguments.small else "trainer=gpu",
        "trainer.precision=bf16-true",
        "trainer.activation_checkpointing=true",
        f"trainer.batch_size={arguments.batch}",
        "trainer.microbatch_size=null",
        "trainer.log_term_gradients=false",
        "trainer.validation_batch_size=4",
        "reference_form=cached",
        "eval=none",
        "logger=none",
        f"cache_dir={folder}/cache",
        *CASES[case],
    ]


def planned(shared: list[str], steps: int) -> dict[str, Any]:
    """What the planner says of a step with each loss: GB at its peak, and whether that fits."""
    found = {}
    for loss in LOSSES:
        config = compose([*shared, f"loss={loss}", f"trainer.max_steps={steps}", "task=plan"])
        plan = make_plan(config, read_data(config))
        of_steps = [one for one in plan.moments if not one.phase.startswith(OUTSIDE)]
        found[loss] = {"gb": of_steps[0].total / 1e9, "fits": plan.fits}
    return found


def run_case(case: str, length: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The plan, then in turn every loss that fits; medians."""
    steps = arguments.steps + WARM_UP
    with tempfile.TemporaryDirectory() as folder:
        shared = overrides_of(case, Path(folder), length, arguments)
        plans = planned(shared, steps)
        if case == "full_8bit" and importlib.util.find_spec("bitsandbytes") is None:
            return {"plans": plans, "not_run": "not run: bitsandbytes is not installed"}
        fitting = [loss for loss in LOSSES if plans[loss]["fits"]]
        if not fitting:
            return {"plans": plans, "not_run": "not run: the planner says that it does not fit"}
        started = time.perf_counter()
        first = Stepper([*shared, f"loss={fitting[-1]}"], steps)
        runs = {loss: first.beside([*shared, f"loss={loss}"]) for loss in fitting[:-1]}
        runs[fitting[-1]] = first
        print(f"{case}, {length}: set up in {time.perf_counter() - started:.0f} s", flush=True)
        found = _take_turns(runs, steps, Flops.of(first.policy.model, case == "lora"))
        return found | {"plans": plans}


def _take_turns(runs: dict[str, Stepper], steps: int, flops: Flops) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks = dict.fromkeys(runs, 0.0)
    needed, tokens = [], []
    for step in range(steps):
        batches = next(iter(runs.values())).loader.microbatches(step)
        # Who goes first changes from step to step.
        for name in list(runs) if step % 2 else reversed(list(runs)):
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            taken = runs[name].seconds(batches)
            if step >= WARM_UP:
                seconds[name].append(taken)
                peaks[name] = max(peaks[name], peak_memory(runs[name].policy.device))
        if step >= WARM_UP:
            needed.append(sum(map(flops, batches)))
            tokens.append(sum(batch.tokens for batch in batches))
    ratios = [
        b / a for a, b in zip(seconds.get("dpo", []), seconds.get("dpo+plot", []), strict=False)
    ]
    return {
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "spread": {name: (min(values), max(values)) for name, values in seconds.items()},
        "peak": peaks,
        "ratio": statistics.median(ratios) if ratios else None,
        "ratios": (min(ratios), max(ratios)) if ratios else None,
        "flops": statistics.fmean(needed),
        "tokens": statistics.fmean(tokens),
    }


def peak_tflops(given: float | None) -> float | None:
    """The GPU's dense bf16 peak; None where nobody says."""
    if given is not None or not CUDA:
        return given
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def rows_of(case: str, length: int, found: dict[str, Any], peak: float | None) -> list[str]:
    """One row of the table a loss."""
    rows = []
    for loss, plan in found["plans"].items():
        head = f"| {case} | {length:,} | `{loss}` | "
        seconds = found.get("seconds", {}).get(loss)
        if seconds is None:
            why = found.get("not_run", "not run: the planner says that it does not fit")
            rows.append(f"{head}{why} | | | | {plan['gb']:.2f} | | | |")
            continue
        low, high = found["spread"][loss]
        rate = found["flops"] / seconds / 1e12
        use = "" if peak is None else f"{rate / peak:.1%}"
        ratio, measured = "", found["peak"][loss]
        if loss != "dpo" and found["ratio"] is not None:
            ratio = f"{found['ratio']:.4f} ({found['ratios'][0]:.4f}–{found['ratios'][1]:.4f})"
        memory = f"{measured:.2f} | {plan['gb'] / measured - 1:+.1%}" if CUDA else " | "
        rows.append(
            f"{head}{found['tokens'] / seconds:,.0f} "
            f"| {seconds:.3f} ({low:.3f}–{high:.3f}) | {rate:,.3f} | {use} "
            f"| {plan['gb']:.{2 if CUDA else 4}f} | {memory} | {ratio} |"
        )
    return rows


def title_of(arguments: argparse.Namespace, peak: float | None) -> list[str]:
    """What stands above the table."""
    stated = "unknown" if peak is None else f"{peak:,.0f} TFLOP/s dense bf16"
    shape = "Qwen2.5-7B's shape"
    lines = ["# Training a 7B shape on one GPU", ""]
    if arguments.small:
        shape = "a tiny shape of the same architecture"
        lines = [
            "# The GPU's benchmark, run small on a CPU",
            "",
            "This is no measurement of a GPU: it shows that every case of `benchmarks/gpu.py` "
            "runs. At such a size a process's memory says nothing of a plan; "
            "[planner.md](planner.md) compares the two.",
            "",
        ]
    return [
        *lines,
        f"Written by `python benchmarks/gpu.py{' --small' * arguments.small}`; see there for what "
        f"is measured: {shape} with random weights, bf16, activation checkpointing, cached "
        f"reference, {arguments.batch} pairs a step in one microbatch, {arguments.steps} steps in "
        f"turn after {WARM_UP} of warming up: medians (least–most). Tokens count a prompt once. "
        f"Planned: what `task=plan` says of a step; error: planned over measured, less one. "
        f"Peak taken for the utilisation: {stated}. {describe(torch.get_num_threads())}.",
        "",
        "| trained | length | loss | tokens/s | s a step | TFLOP/s | utilisation | planned GB "
        "| measured GB | error | ratio |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]


def main() -> None:
    """Measures every case in a process of its own and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 1024])
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, dense bf16")
    parser.add_argument("--small", action="store_true", help="a tiny shape, to see that it runs")
    parser.add_argument("--into", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.into:
        found = run_case(arguments.cases[0], arguments.lengths[0], arguments)
        write_text(Path(arguments.into), json.dumps(found))
        return
    if not (CUDA or arguments.small):
        raise SystemExit("there is no CUDA GPU here; --small runs a tiny shape on the CPU")
    peak = peak_tflops(arguments.peak_tflops)
    rows = []
    for case in arguments.cases:
        for length in arguments.lengths:
            measure = run_case if arguments.small else _in_a_process
            rows += rows_of(case, length, measure(case, length, arguments), peak)
            print("\n".join(rows[-2:]), flush=True)
    text = "\n".join([*title_of(arguments, peak), *rows]) + "\n"
    if list(arguments.cases) == list(CASES) or not arguments.small:
        name = "gpu_small.md" if arguments.small else "gpu.md"
        write_text(Path(__file__).parent / "results" / name, text)
    print(text)


def _in_a_process(case: str, length: int, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--cases", case, "--lengths", str(length)]
        command += ["--batch", str(arguments.batch), "--steps", str(arguments.steps)]
        command += ["--into", str(into)]
        subprocess.run(command, check=True, env={**os.environ})
        found: dict[str, Any] = json.loads(into.read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    main()
