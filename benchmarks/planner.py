"""The planner's peaks against measured ones, on a CPU.

    python benchmarks/planner.py [--cases NAME ...]

Each case is a whole `task=train` with random weights in a process of its own: from the data to the
exported model, two steps, no answers. What is measured is the highest resident memory of that
process (VmHWM, reset before the run) less what it held after its imports. The planner sees the
same overrides and runs nothing. glibc gives large blocks back to the system at once
(MALLOC_MMAP_THRESHOLD_), as torch's allocator on a GPU counts them. Writes
benchmarks/results/planner.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe
from random_model import write_start

from plot_exp.files import write_text

THREADS = 1
PAIRS = 10
# Many weights and few operations, or many activations beside few weights.
HEAVY = {"vocab_size": 152_064, "hidden_size": 768, "num_hidden_layers": 2}
DEEP = {"vocab_size": 32_000, "hidden_size": 1_024, "num_hidden_layers": 8}
MIDDLE = {"vocab_size": 32_000, "hidden_size": 1_024, "num_hidden_layers": 4}
SLIM = {"vocab_size": 32_000, "hidden_size": 512, "num_hidden_layers": 8}
QUIET = "trainer.log_term_gradients=false"
TWO, FOUR = ("trainer.batch_size=2", QUIET), ("trainer.batch_size=4", QUIET)
CHECKPOINTED = "trainer.activation_checkpointing=true"
MIXED = "trainer.precision=bf16-mixed"
LORA = ("model.lora.rank=16", "model.lora.target_modules=all-linear")

# name: architecture, sizes, tokens of an example, what is typed beside them.
CASES: dict[str, tuple[str, dict[str, int], int, tuple[str, ...]]] = {
    "full, copy": ("qwen2", DEEP, 256, ("loss=dpo", "reference_form=copy", *FOUR)),
    "full, cached": ("llama", HEAVY, 64, ("loss=dpo", "reference_form=cached", *TWO)),
    "full, each term's gradient": ("qwen2", MIDDLE, 64, ("loss=dpo+plot", "trainer.batch_size=2")),
    "full, bf16-mixed": ("qwen2", HEAVY, 64, ("loss=dpo", MIXED, *TWO)),
    "full, bf16-true": (
        "llama",
        HEAVY,
        64,
        ("loss=dpo", "reference_form=copy", "trainer.precision=bf16-true", *TWO),
    ),
    "large tied vocabulary, sft": ("qwen2", HEAVY, 256, ("loss=sft", *FOUR)),
    "large tied vocabulary, dpo+plot": ("qwen2", HEAVY, 256, ("loss=dpo+plot", *TWO)),
    "head in chunks": ("qwen2", HEAVY, 256, ("loss=dpo+plot", "trainer.head_chunk=16", *TWO)),
    "two microbatches, dpo+plot": (
        "llama",
        SLIM,
        512,
        ("loss=dpo+plot", "trainer.microbatch_size=4", "trainer.batch_size=8", QUIET),
    ),
    "padded rows": ("qwen2", SLIM, 384, ("loss=dpo", "trainer.layout=padded", *FOUR)),
    "checkpointed": ("llama", HEAVY, 512, ("loss=dpo", CHECKPOINTED, *FOUR)),
    "LoRA": ("qwen2", MIDDLE, 1_024, ("loss=dpo", *LORA, *FOUR)),
    "LoRA, bf16-mixed": ("qwen2", SLIM, 1_024, ("loss=dpo", MIXED, *LORA, *FOUR)),
    "LoRA, checkpointed, bf16-mixed": (
        "llama",
        HEAVY | {"hidden_size": 1_536},
        256,
        ("loss=dpo+plot", CHECKPOINTED, MIXED, *LORA, *TWO),
    ),
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": str(THREADS),
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
    "HF_HUB_OFFLINE": "1",
}


def overrides_of(name: str, folder: Path) -> list[str]:
    """What is typed for a case, on a model and data that are written into the folder."""
    architecture, sizes, length, own = CASES[name]
    shape = {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 4 * sizes["hidden_size"],
        "tie_word_embeddings": "tied" in name or "chunks" in name,
        **sizes,
    }
    write_start(folder, shape, length, PAIRS, architecture)
    return [
        "model=hf",
        f"model.name={folder}",
        "model.weights=random",
        "dataset=jsonl",
        f"dataset.path={folder}/pairs.jsonl",
        "dataset.validation_limit=2",
        f"dataset.max_length={length}",
        "trainer=cpu",
        "trainer.max_steps=2",
        "trainer.progress=false",
        "trainer.validation_batch_size=2",
        "eval=none",
        "logger=none",
        f"cache_dir={folder}/cache",
        f"output_dir={folder}/outputs",
        *own,
    ]


def planned(overrides: list[str]) -> dict[str, Any]:
    """plan.json of a case, and the seconds that it took."""
    import time

    from plot_exp.config.composition import compose
    from plot_exp.planner.plan import make_plan
    from plot_exp.planner.text import facts_of
    from plot_exp.workflows.plan import read_data

    started = time.perf_counter()
    config = compose([*overrides, "task=plan", "plan.advise=false"])
    plan = make_plan(config, read_data(config))
    return facts_of(plan, []) | {"took": time.perf_counter() - started}


def measured(overrides: list[str], into: Path) -> None:
    """Runs a case and writes its peak less the baseline, in bytes."""
    import lightning.pytorch  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    import plot_exp.workflows.train
    from plot_exp.config.composition import compose

    torch.ones(64, 64) @ torch.ones(64, 64)
    config = compose(overrides)
    run_dir = into.parent / "run"
    run_dir.mkdir()
    baseline = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    plot_exp.workflows.train.run(config, run_dir)
    write_text(into, json.dumps({"peak": _status("VmHWM") - baseline, "baseline": baseline}))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def row_of(name: str, plan: dict[str, Any], found: dict[str, int]) -> str:
    """One row of the table."""
    expected, peak = plan["peak"]["bytes"], found["peak"]
    return (
        f"| {name} | {plan['weights'] / 1e6:,.0f} M | {plan['peak']['phase']} "
        f"| {expected / 1e9:.2f} | {peak / 1e9:.2f} | {expected / peak - 1:+.1%} "
        f"| {plan['took']:.1f} |"
    )


def main() -> None:
    """Plans and measures every case, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--keep", help="a file with earlier rows, filled in")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--into", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        measured(json.loads(Path(arguments.run).read_text()), Path(arguments.into))
        return
    rows: dict[str, str] = {}
    if arguments.keep and Path(arguments.keep).is_file():
        rows = json.loads(Path(arguments.keep).read_text(encoding="utf-8"))
    for name in arguments.cases:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            overrides = overrides_of(name, folder)
            plan = planned(overrides)
            rows[name] = row_of(name, plan, _in_a_process(overrides, folder))
        print(rows[name], json.dumps(plan["parts"]), flush=True)
        if arguments.keep:
            write_text(Path(arguments.keep), json.dumps(rows))
    text = "\n".join(_table([rows[name] for name in CASES if name in rows])) + "\n"
    if set(rows) == set(CASES):
        write_text(Path(__file__).parent / "results" / "planner.md", text)
    print(text)


def _in_a_process(overrides: list[str], folder: Path) -> dict[str, int]:
    asked, into = folder / "asked.json", folder / "found.json"
    write_text(asked, json.dumps(overrides))
    command = [sys.executable, __file__, "--run", str(asked), "--into", str(into)]
    with (folder / "log").open("wb") as log:
        done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=log)
    if done.returncode:
        raise SystemExit((folder / "log").read_text(encoding="utf-8")[-4_000:])
    found: dict[str, int] = json.loads(into.read_text(encoding="utf-8"))
    return found


def _table(rows: list[str]) -> list[str]:
    return [
        "# The planner against measured peaks, on a CPU",
        "",
        "Written by `python benchmarks/planner.py`; see there for what is measured. Random "
        "weights, Llama and Qwen2 architectures, two steps; the run's highest resident memory "
        "less the process's own baseline after imports. Error: planned over measured, less one. "
        f"{describe(THREADS)}.",
        "",
        "| case | weights | planned peak is in | planned GB | measured GB | error | s to plan |",
        "|---|--:|---|--:|--:|--:|--:|",
        *rows,
    ]


if __name__ == "__main__":
    main()
