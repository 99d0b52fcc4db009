"""The study: every form of transport beside exact transport, in several settings.

    python experiments/transport/study.py --work DIR --data DIR [--model DIR ...]

`--work` holds the trajectories that `record_runs.py` made, and gets nothing; `--data` holds
`hh-rlhf/SUBSET/test.jsonl.gz`; each `--model` is a local folder with a tokenizer and a model, an
encoder or a causal one, whose token embeddings are studied. Writes `results/forms.csv`, `forms.md`
and `forms.png` beside this file.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from forms import COSTS, Setting, measure, mixtures
from safetensors import safe_open
from torch import Tensor
from trajectory import Trajectory
from transformers import AutoTokenizer
from write import write_results

from plot_exp.data.preference_distribution import (
    TokenCounts,
    allowed_tokens,
    count_tokens,
    difference,
    target,
)
from plot_exp.ot.mass import restrict

RESULTS = Path(__file__).parent / "results"
SUBSETS = ("harmless-base", "helpful-online")
MIXTURES, WARM_STEPS = 10, 4


def run_settings(name: str, run: Trajectory, mixed: Tensor) -> Iterator[tuple[Setting, list[str]]]:
    """Settings from a training run: its embeddings, targets, and three of its stages."""
    draw = torch.Generator().manual_seed(0)
    tables = {
        "input": run.input,
        "contextual": run.contextual,
        "random": torch.randn(run.input.shape, generator=draw),
    }
    counts = TokenCounts(run.chosen, run.rejected, 0, 0)
    signed = difference(counts, run.allowed)
    targets = {
        "relu": target(signed, "relu", 1.0, run.allowed),
        "anchored": target(signed, "relu", 1.0, run.allowed, run.reference, 1.0),
    }
    last = len(run.distributions) - 1
    stages = {"start": 0, "middle": last // 2, "end": last}
    for kind, table in tables.items():
        for label, q in targets.items():
            for stage, step in stages.items():
                usual = kind == "input" and label == "relu"
                if stage != "end" and not usual:
                    continue
                setting = Setting(
                    {"data": name, "embedding": kind, "target": label, "stage": stage},
                    table,
                    run.allowed,
                    run.token_mass,
                    q,
                    run.distributions[step],
                    list(run.distributions[max(0, step - WARM_STEPS) : step]),
                    mixed if stage == "end" else mixed[:0],
                )
                yield setting, list(COSTS) if usual and stage == "end" else ["raw"]


def model_settings(folder: Path, data: Path) -> Iterator[tuple[Setting, list[str]]]:
    """Settings from a folder with a tokenizer and trained embeddings, and preference files."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    table = trained_embedding(folder)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    allowed = allowed_tokens(len(table), special, len(tokenizer))
    for subset in SUBSETS:
        chosen, rejected = responses(data / "hh-rlhf" / subset / "test.jsonl.gz", tokenizer)
        half = len(chosen) // 2
        counts = count_tokens(chosen[:half], rejected[:half], len(table))
        signed = difference(counts, allowed)
        mixed = mixtures(chosen[half:], allowed, MIXTURES + WARM_STEPS + 1, seed=0)
        reference = restrict(counts.chosen.double() + 1e-3, allowed)
        targets = {"relu": target(signed, "relu", 1.0, allowed)}
        if subset == SUBSETS[0]:
            targets["anchored"] = target(signed, "relu", 1.0, allowed, reference, 1.0)
        for label, q in targets.items():
            setting = Setting(
                {
                    "data": f"HH-RLHF {subset}",
                    "embedding": folder.resolve().parent.name
                    if folder.name == "model"
                    else folder.name,
                    "target": label,
                    "stage": "mixture",
                },
                table,
                allowed,
                counts.mass(allowed),
                q,
                mixed[0],
                list(mixed[1 : 1 + WARM_STEPS]),
                mixed[1 + WARM_STEPS :],
            )
            yield setting, list(COSTS) if setting.facts["target"] == "relu" else ["raw"]


def trained_embedding(folder: Path) -> Tensor:
    """The token embeddings [V, D] of a model folder, found by name among its tensors."""
    names = ("word_embeddings.weight", "embed_tokens.weight", "wte.weight")
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  (no mapping)
                if key.endswith(names):
                    return file.get_tensor(key).float()
    raise SystemExit(f"{folder}: no tensor named like {', '.join(names)} in *.safetensors")


def responses(path: Path, tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of the chosen and the rejected last answers of an HH-RLHF file; empty ones left out."""
    sides: tuple[list[list[int]], list[list[int]]] = ([], [])
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            texts = [row[key].rsplit("\n\nAssistant:", 1)[-1] for key in ("chosen", "rejected")]
            both = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            if all(both):
                for side, ids in zip(sides, both, strict=True):
                    side.append(ids)
    return sides


def main() -> None:
    """Measures every setting in every cost and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", default=[])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    settings: list[tuple[Setting, list[str]]] = []
    for name, file in (("HH-RLHF harmless-base", "hh8k"), ("demo", "demo2k")):
        run = Trajectory.load(options.work / f"{file}.safetensors")
        # Batches of the run itself are the mixtures: each is the model's mean over other dialogues.
        spread = torch.linspace(0, len(run.distributions) - 1, MIXTURES).long()
        settings += run_settings(name, run, run.distributions[spread])
    for folder in options.model:
        settings += model_settings(folder, options.data)
    RESULTS.mkdir(exist_ok=True)
    for setting, costs in settings:
        for label in costs:
            rows += measure(setting, label)
            print(*setting.facts.values(), label, flush=True)
        with (RESULTS / "forms.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {
                    key: ("" if value != value else f"{value:.4f}")
                    if isinstance(value, float)
                    else value
                    for key, value in row.items()
                }
                for row in rows
            )
    assert all(math.isfinite(row["both"]) for row in rows)
    write_results(RESULTS)


if __name__ == "__main__":
    main()
