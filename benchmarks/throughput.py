"""Pairs a second and peak memory of DPO, here and in TRL's DPOTrainer, in turn in one run.

    python benchmarks/throughput.py [--trl-python PYTHON] [--data hh_rlhf] [--repetitions 3]

Both train the same model from the same weights on the same token ids with the same optimizer, as
whole processes through their own loops. TRL may live in an environment of its own
(benchmarks/requirements-trl.txt). Losses are compared step by step on identical batches before
anything is timed; the clock starts behind the first step on both sides. Peak memory is that of
the process, or of the GPU's allocator. Writes benchmarks/results/throughput.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe

from plot_exp.config.composition import compose
from plot_exp.config.model import TinyConfig
from plot_exp.data import sources
from plot_exp.data.loader import StepLoader
from plot_exp.files import write_text
from plot_exp.models.tiny import build_model, train_tokenizer
from plot_exp.progress import shown
from plot_exp.workflows.prepare import prepare

HERE = Path(__file__).parent
LEARNING_RATE, BETA = 1e-5, 0.1
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        ours: settings of plot_exp beside those that all share.
        theirs: arguments of TRL's DPOConfig beside those that all share.
        shuffled: TRL draws its own batches, since ours are grouped by length.
    """

    name: str
    ours: tuple[str, ...] = ()
    theirs: tuple[tuple[str, Any], ...] = ()
    shuffled: bool = False


SAME, GROUPED = "trainer.group_by_length=false", "trainer.group_by_length=true"
LIVE, CACHED = "reference_form=copy", "reference_form=cached"
PRECOMPUTED = (("precompute_ref_log_probs", True),)
CASES = (
    Case("live reference, same batches", (LIVE, SAME)),
    Case("live reference, ours grouped by length", (LIVE, GROUPED), shuffled=True),
    Case("cached reference, same batches", (CACHED, SAME), PRECOMPUTED),
    Case("cached reference, ours grouped by length", (CACHED, GROUPED), PRECOMPUTED, True),
    Case("live reference, same batches, ours padded", (LIVE, SAME, "trainer.layout=padded")),
)
OWN_DEFAULTS = Case(
    "TRL with its own defaults (bf16, activation checkpointing)",
    (LIVE, SAME),
    (("bf16", True), ("gradient_checkpointing", True)),
)


class Setting:
    """The model, the pairs and the folder that both sides share."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.model = folder / "start"
        self.data = [f"dataset={arguments.data}", f"dataset.limit={arguments.pairs}"]
        self.data += [f"dataset.max_length={arguments.max_length}", "dataset.validation_limit=8"]
        if arguments.subset:
            self.data.append(f"dataset.subset={arguments.subset}")
        self._write_model()
        self._write_tokens()

    def _write_model(self) -> None:
        arguments = self.arguments
        config = compose([*self.data, "logger=none"])
        split = sources.read(config.dataset, [], cache_dir=self.folder / "cache")
        shape = TinyConfig(
            vocab_size=arguments.vocab,
            hidden_size=arguments.hidden,
            layers=arguments.layers,
            heads=max(1, arguments.hidden // 64),
        )
        # A tokenizer learns from more text than is trained on, or it would know every word.
        texts = sources.read(
            config.dataset.model_copy(update={"limit": None}), [], cache_dir=self.folder / "cache"
        )
        tokenizer = train_tokenizer(shape, texts.train or split.train)
        tokenizer.save_pretrained(self.model)
        build_model(shape, tokenizer).save_pretrained(self.model)

    def overrides(self, *more: str) -> list[str]:
        """The settings of plot_exp that every case shares, and more."""
        arguments = self.arguments
        return [
            "model=hf",
            f"model.name={self.model}",
            *self.data,
            "loss=dpo",
            f"loss.dpo.beta={BETA}",
            f"optimizer.lr={LEARNING_RATE}",
            "optimizer.schedule=constant",
            "optimizer.warmup_fraction=0",
            f"trainer={'gpu' if torch.cuda.is_available() else 'cpu'}",
            "trainer.precision=32-true",
            f"trainer.batch_size={arguments.batch}",
            f"trainer.max_steps={self.steps}",
            "trainer.checkpoint_every=1000000",
            "trainer.log_every=1000000",
            "trainer.log_term_gradients=false",
            "eval=none",
            "eval.preferences=false",
            "logger=none",
            f"cache_dir={self.folder / 'cache'}",
            *more,
        ]

    @property
    def steps(self) -> int:
        """Optimizer steps: one pass over the pairs."""
        return self.arguments.pairs // self.arguments.batch

    def _write_tokens(self) -> None:
        config = compose(self.overrides(SAME))
        prepared = prepare(config, shown)
        loader = StepLoader(
            prepared.train,
            batch_size=config.trainer.batch_size,
            microbatch_size=None,
            epochs=1,
            max_steps=self.steps,
            seed=config.seed,
            pad_id=prepared.start.tokeniser.tokenizer.pad_token_id,
        )
        rows = []
        for step in range(self.steps):
            for index in loader.indices(step):
                example = prepared.train[index]
                chosen, rejected = example.response_ids
                rows.append(
                    {
                        "prompt_ids": list(example.prompt_ids),
                        "chosen_ids": list(chosen),
                        "rejected_ids": list(rejected),
                    }
                )
        write_text(self.folder / "tokens.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
        lengths = [[len(ids) for ids in row.values()] for row in rows]
        self.mean_lengths = [statistics.mean(column) for column in zip(*lengths, strict=True)]


def run_theirs(setting: Setting, case: Case, log_every: int = 1_000_000) -> dict[str, Any]:
    """One whole process of TRL."""
    arguments = setting.arguments
    settings = {
        "model": str(setting.model),
        "tokens": str(setting.folder / "tokens.jsonl"),
        "threads": arguments.threads,
        "dtype": "float32",
        "shuffled": case.shuffled,
        "log_every": log_every,
        "training": {
            "max_steps": setting.steps,
            "per_device_train_batch_size": arguments.batch,
            "gradient_accumulation_steps": 1,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "beta": BETA,
            "bf16": False,
            "gradient_checkpointing": False,
            "use_cpu": not torch.cuda.is_available(),
            **dict(case.theirs),
        },
    }
    file = setting.folder / "trl.json"
    write_text(file, json.dumps(settings))
    command = [arguments.trl_python, str(HERE / "peers" / "trl_dpo.py"), str(file)]
    output = finished(command, arguments.threads)
    line = next(line for line in reversed(output.split("\n")) if line.startswith("RESULT "))
    return dict(json.loads(line.removeprefix("RESULT ")))


def run_ours(setting: Setting, case: Case, *more: str) -> dict[str, Any]:
    """One whole process of `python -m plot_exp`."""
    folder = setting.folder / "runs"
    before = set(folder.glob("*/*"))
    overrides = setting.overrides(*case.ours, f"output_dir={folder}", *more)
    command = [sys.executable, "-m", "plot_exp", *overrides]
    finished(command, setting.arguments.threads)
    (run_dir,) = set(folder.glob("*/*")) - before
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    losses = []
    if (run_dir / "metrics.csv").is_file():
        header, *lines = (run_dir / "metrics.csv").read_text(encoding="utf-8").strip().split("\n")
        place = header.split(",").index("train/loss")
        losses = [float(line.split(",")[place]) for line in lines if line.split(",")[place]]
    return {
        "pairs_per_second": metrics["train/pairs_per_second"],
        "peak_bytes": metrics["train/peak_memory_gb"] * 1e9,
        "losses": losses,
    }


def finished(command: list[str], threads: int) -> str:
    """The command's output; its errors where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def check_losses(setting: Setting) -> tuple[float, dict[str, str]]:
    """The largest difference of a step's loss on identical batches, and the peer's versions.

    Raises:
        SystemExit: it is above the tolerance, so that timing would compare two things.
    """
    case = CASES[0]
    ours = run_ours(setting, case, "trainer.log_every=1")["losses"]
    found = run_theirs(setting, case, log_every=1)
    theirs = found["losses"]
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    if max(differences) > TOLERANCE:
        raise SystemExit(f"the losses differ: ours {ours}, TRL's {theirs}")
    return max(differences), found["versions"]


def measure(setting: Setting, case: Case) -> str:
    """One row of the table: both sides in turn, several times."""
    # A first run fills the cache, which TRL's own figure does not count either.
    if CACHED in case.ours:
        run_ours(setting, case)
    ours, theirs = [], []
    for _ in range(setting.arguments.repetitions):
        theirs.append(run_theirs(setting, case))
        ours.append(run_ours(setting, case))

    def spread(values: list[float], form: str) -> str:
        low, middle, high = min(values), statistics.median(values), max(values)
        return f"{middle:{form}} ({low:{form}}–{high:{form}})"

    def ratios(key: str) -> list[float]:
        return [a[key] / b[key] for a, b in zip(ours, theirs, strict=True)]

    cells = [
        case.name,
        spread([one["pairs_per_second"] for one in theirs], ".2f"),
        spread([one["pairs_per_second"] for one in ours], ".2f"),
        spread(ratios("pairs_per_second"), ".2f"),
        spread([one["peak_bytes"] / 1e9 for one in theirs], ".2f"),
        spread([one["peak_bytes"] / 1e9 for one in ours], ".2f"),
        spread(ratios("peak_bytes"), ".2f"),
    ]
    print("| " + " | ".join(cells) + " |", flush=True)
    return "| " + " | ".join(cells) + " |"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trl-python", default=sys.executable, help="a Python that has TRL")
    parser.add_argument("--data", default="hh_rlhf", help="a value of dataset=")
    parser.add_argument("--subset", default="harmless-base")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="*", help="rows to measure, from 0")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "throughput.md")
    return parser.parse_args()


def main() -> None:
    """Checks the losses, measures every case and writes the table."""
    arguments = parse()
    cases = [*CASES, OWN_DEFAULTS]
    if arguments.cases is not None:
        cases = [cases[index] for index in arguments.cases]
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(arguments, Path(folder))
        difference, versions = check_losses(setting)
        rows = [measure(setting, case) for case in cases]
    prompt, chosen, rejected = setting.mean_lengths
    text = "\n".join(
        [
            "# Throughput against TRL's DPOTrainer",
            "",
            "Written by `python benchmarks/throughput.py`; see there for what is measured. "
            f"{arguments.pairs} pairs of `dataset={arguments.data}` "
            f"{arguments.subset or ''} (mean tokens: prompt {prompt:.0f}, chosen {chosen:.0f}, "
            f"rejected {rejected:.0f}), batch {arguments.batch}, AdamW, fp32; Qwen2 architecture, "
            f"hidden {arguments.hidden}, {arguments.layers} layers, vocabulary {arguments.vocab}. "
            "TRL without bf16 and activation checkpointing, which are its defaults, except where a "
            f"row says so. Median (least–most) of {arguments.repetitions} runs of each, in turn.",
            "",
            f"{describe(arguments.threads)}; TRL {versions['trl']} with torch "
            f"{versions['torch']}, transformers {versions['transformers']}.",
            "",
            f"Losses on identical batches, before timing: at most {difference:.1e} apart "
            f"over {setting.steps} steps.",
            "",
            "| case | TRL pairs/s | ours pairs/s | ratio | TRL peak GB | ours peak GB | ratio |",
            "|---|--:|--:|--:|--:|--:|--:|",
            *rows,
            "",
        ]
    )
    write_text(arguments.output, text)
    print(text)


if __name__ == "__main__":
    main()
