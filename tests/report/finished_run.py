"""A finished run as `task=train` leaves it, with the oddities that real text has."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

CATEGORIES = (
    "Harmlessness",
    "Helpfulness",
    "Humanity",
    "Mathematics",
    "Reasoning",
    "Coding",
    "STEM",
)
NASTY = "a | b `code` *bold* <script>x</script>\n# no heading\n![i](http://x) $x$ \x07 &amp; _u_"


def make(run_dir: Path, seed: int = 0) -> Path:
    """Writes every file of a run directory that the report reads."""
    run_dir.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    _json(run_dir / "environment.json", environment(seed))
    (run_dir / "config.yaml").write_text(yaml.safe_dump(configuration(seed), sort_keys=False))
    _json(run_dir / "metrics.json", metrics(draw))
    history(run_dir / "metrics.csv", draw)
    rows = [json.dumps(row, ensure_ascii=False) for row in samples()]
    (run_dir / "samples.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _json(run_dir / "data.json", data())
    _json(run_dir / "preference_distribution.json", distribution(draw))
    return run_dir


def configuration(seed: int) -> dict[str, Any]:
    return {
        "name": "dpo+plot on demo",
        "task": "train",
        "seed": seed,
        "model": {"name": "tiny", "weights": "pretrained"},
        "dataset": {"name": "demo", "rejected": "given", "max_length": 512},
        "loss": {
            "dpo": {"weight": 1.0, "beta": 0.1},
            "plot": {"alpha": 1.0, "distribution": "batch", "transform": "relu"},
        },
        "trainer": {"batch_size": 16, "max_steps": 300},
        "reference": "policy",
    }


def environment(seed: int) -> dict[str, Any]:
    return {
        "started": "2030-01-02T03:04:05+00:00",
        "command": f"python -m plot_exp seed={seed} 'dataset.path=/my data/a.jsonl'",
        "seeds": {"run": seed, "split": 0},
        "plot_exp": "0.1.0",
        "commit": {"id": "0" * 40, "changed": True},
        "python": "3.11.7",
        "packages": {"torch": "2.13.0+cpu"},
        "hardware": {"processor": "A processor", "cores": 2, "memory_gb": 8.0, "gpus": []},
    }


def metrics(draw: random.Random) -> dict[str, float]:
    numbers: dict[str, float] = {"val/count": 280}
    for category in CATEGORIES:
        numbers[f"val/count/{category}"] = 40
        for prefix, level in (("base/", 0.5), ("", 0.83)):
            for key in ("val/reward_accuracy", "val/logp_accuracy/sum", "val/logp_accuracy/mean"):
                numbers[f"{prefix}{key}/{category}"] = level + draw.uniform(-0.08, 0.08)
    for prefix, level in (("base/", 0.5), ("", 0.832)):
        for key in ("val/reward_accuracy", "val/logp_accuracy/sum", "val/logp_accuracy/mean"):
            _proportion(numbers, prefix + key, level, 280)
        numbers[f"{prefix}val/reward_margin"] = 0.0 if prefix else 1.4321
        numbers[f"{prefix}val/reward_margin/chosen_longer"] = 0.0 if prefix else 1.6
        numbers[f"{prefix}val/reward_margin/rejected_longer"] = 0.0 if prefix else 1.1
        _proportion(numbers, f"{prefix}eval/demo/harmful_answer_rate", 0.7 if prefix else 0.1, 20)
        _proportion(numbers, f"{prefix}eval/exact_match/Mathematics", 0.4 if prefix else 0.55, 20)
        numbers[f"{prefix}eval/perplexity_under_reference"] = 4.02 if prefix else 5.77
        numbers[f"{prefix}eval/distinct_1"] = 0.31
        numbers[f"{prefix}eval/response_length"] = 24.3
    numbers["eval/made_up"] = 12345.6
    numbers |= {"train/seconds": 61.2, "train/pairs_per_second": 77.7, "train/peak_memory_gb": 1.9}
    return numbers


def history(path: Path, draw: random.Random, steps: int = 300) -> None:
    rows = [_row(step, steps, draw) for step in range(10, steps + 1, 10)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(repr(row[name]) if name in row else "" for name in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(step: int, steps: int, draw: random.Random) -> dict[str, float]:
    done = 1 - math.exp(-3 * step / steps)
    noise = draw.gauss(0, 0.05)
    chosen, rejected = 0.5 * done + noise, -1.1 * done + noise
    row: dict[str, float] = {
        "step": step,
        "train/loss": 1.1 - 0.6 * done + noise,
        "train/loss/dpo": 0.69 - 0.35 * done + noise / 2,
        "train/loss/plot": 0.41 - 0.25 * done + noise / 2,
        "train/plot/distance": 0.41 - 0.25 * done + noise / 2,
        "train/reward_chosen": chosen,
        "train/reward_rejected": rejected,
        "train/reward_margin": chosen - rejected,
        "train/reward_accuracy": min(1.0, 0.5 + 0.45 * done + noise),
        "train/logps_chosen": -40 + 4 * done,
        "train/logps_rejected": -42 - 11 * done,
        "train/grad_norm": 2.0 - done + abs(noise),
        "train/grad_norm/dpo": 1.7 - done + abs(noise),
        "train/grad_norm/plot": 0.6 - 0.3 * done,
        "train/grad_share/plot": (0.6 - 0.3 * done) / (1.7 - done + abs(noise)),
        "train/lr": 1e-4 * (1 - step / steps),
    }
    for percent in (10, 25, 50, 75, 90):
        spread = (percent - 50) / 40 * done
        row[f"train/quantile/chosen/{percent}"] = chosen + spread
        row[f"train/quantile/rejected/{percent}"] = rejected + spread
    if step % 100 == 0:
        row["val/loss"] = 1.15 - 0.55 * done
        row["val/reward_chosen"], row["val/reward_rejected"] = 0.4 * done, -done
        row["val/reward_margin"] = 1.4 * done
        row["val/reward_accuracy"] = 0.5 + 0.35 * done
        row["val/logp_accuracy/sum"] = 0.5 + 0.3 * done
        row["val/logp_accuracy/mean"] = 0.52 + 0.25 * done
        for index, category in enumerate(CATEGORIES):
            row[f"val/reward_accuracy/{category}"] = 0.5 + (0.45 - 0.04 * index) * done
    return row


def samples() -> list[dict[str, Any]]:
    rows = []
    for category in CATEGORIES:
        for number in range(3):
            rows.append(
                {
                    "prompt": [{"role": "user", "content": f"{category} question {number}?"}],
                    "category": category,
                    "dataset": "demo",
                    "chosen": "A careful answer.",
                    "rejected": None if category == "Mathematics" else "A careless answer.",
                    "before": "Sure, here is how. " * (40 if number else 2),
                    "after": "I cannot help with that, but here is something that I can do.",
                    "verdict_before": "answered",
                    "verdict_after": "refused",
                }
            )
    rows[0]["before"] = NASTY
    rows[1]["prompt"] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello | there"},
        {"role": "user", "content": "Go on"},
    ]
    rows[1]["after"] = ""
    return rows


def data() -> dict[str, Any]:
    tally = {
        "dataset": "demo",
        "kept": {"train": 2700, "validation": 280},
        "dropped": {"chosen and rejected are the same": 12, "too long | 512 tokens": 8},
        "changed": {"blank ends were cut": 3},
        "examples": {"chosen and rejected are the same": ["demo, row 3", "demo, row 9"]},
    }
    overlap = {"prompts": 4, "removed": False, "training": 2700}
    return {"tallies": [tally], "overlap": overlap, "train": 2700, "validation": 280}


def distribution(draw: random.Random) -> dict[str, Any]:
    words = ["Ġplease", "Ġcannot", "Ġ$x$", "\n", "世界", "Ġbecause", ".", "Ġ\\frac{a}", "Ġa" * 12]
    favoured, disfavoured, moved = [], [], []
    for rank in range(30):
        token = words[rank] if rank < len(words) else f"Ġword{rank}"
        size = 0.02 * math.exp(-rank / 9)
        fields = {"token": token, "id": 10 + rank}
        favoured.append({**fields, "chosen": 900 - rank, "rejected": 90, "difference": size})
        disfavoured.append({**fields, "chosen": 80, "rejected": 800 - rank, "difference": -size})
        before = size * draw.uniform(0.2, 0.6)
        moved.append({**fields, "target": size, "before": before, "after": (before + size) / 2})
    return {
        "favoured": favoured,
        "disfavoured": disfavoured,
        "distance_before": 0.413,
        "distance_after": 0.158,
        "moved": moved,
    }


def _proportion(numbers: dict[str, float], key: str, value: float, count: int) -> None:
    half = 1.96 * math.sqrt(value * (1 - value) / count)
    numbers[key] = value
    numbers[f"{key}/count"] = count
    numbers[f"{key}/low"], numbers[f"{key}/high"] = max(0, value - half), min(1, value + half)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
