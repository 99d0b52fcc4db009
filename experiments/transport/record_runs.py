"""Trains the runs that the study looks at and keeps their token distributions.

    python experiments/transport/record_runs.py --work DIR --data DIR [--large MODEL_DIR]

`--large` is a local causal model with a large vocabulary: it is first trained for 80 steps on the
chosen responses, then for 24 with the preference loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trajectory import record

from plot_exp.config.composition import compose
from plot_exp.workflows import train

COMMON = (
    "trainer.batch_size=16",
    "trainer.validate_every=null",
    "trainer.checkpoint_every=1000",
    "trainer.log_term_gradients=false",
)
PLAIN_TARGET = "loss.plot.anchor=none"


def main() -> None:
    """Records what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--large", type=Path)
    options = parser.parse_args()
    cache = f"cache_dir={options.work / 'cache'}"
    preferences = ("dataset=hh_rlhf", f"dataset.path={options.data / 'hh-rlhf' / 'harmless-base'}")
    runs = {
        "hh8k": [
            *preferences,
            "dataset.max_length=256",
            "dataset.validation_limit=32",
            "model.tiny.vocab_size=8000",
            "model.tiny.base_steps=200",
            "model.tiny.base_batch_size=16",
            "trainer.max_steps=60",
        ],
        "demo2k": [
            "dataset.validation_limit=16",
            "model.tiny.base_steps=150",
            "trainer.max_steps=24",
        ],
    }
    if options.large:
        short = [*preferences, "dataset.max_length=128", "dataset.validation_limit=8", "model=hf"]
        first = options.work / "runs" / "large_start"
        if not (first / "metrics.json").is_file():
            first.mkdir(parents=True, exist_ok=True)
            start = [*short, f"model.name={options.large}", "loss=sft", "optimizer.lr=3e-3"]
            quiet = ["logger=none", "eval=none", cache, "trainer.max_steps=80"]
            train.run(compose([*COMMON, *start, *quiet]), first)
        runs["hh152k"] = [
            *short,
            f"model.name={first / 'model'}",
            "optimizer.lr=1e-3",
            "trainer.max_steps=24",
        ]
    for name, overrides in runs.items():
        path = options.work / f"{name}.safetensors"
        if not path.is_file():
            found = record([*COMMON, PLAIN_TARGET, cache, *overrides], options.work / "runs" / name)
            found.save(path)


if __name__ == "__main__":
    main()
