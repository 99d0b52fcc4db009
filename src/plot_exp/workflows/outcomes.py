"""What benchmarks leave in a run's folder, and in W&B."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plot_exp.errors import UserError
from plot_exp.evals.base import Outcome
from plot_exp.evals.mt_bench_scores import against_start
from plot_exp.files import write_json, write_text
from plot_exp.tracking.wandb_log import WandbLog
from plot_exp.workflows.benchmarks import Measured

EVALUATIONS = "evaluations.json"
SHOWN_IN_WANDB = 200


def read_metrics(path: Path) -> dict[str, float]:
    """A run's metrics.json; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        metrics: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it, and it is written anew"
        ) from error
    return metrics


def write_outcomes(run_dir: Path, after: Measured, before: Measured | None) -> dict[str, float]:
    """Writes `evaluations.json`, `evals/NAME.jsonl` and the rows of `samples.jsonl`.

    Returns:
        The numbers for metrics.json; those of the run's start under `base/`.
    """
    sides = {"after": after, "before": before or Measured()}
    found = _evaluations(run_dir / EVALUATIONS)
    for side, measured in sides.items():
        for name, outcome in measured.outcomes.items():
            found.setdefault(name, {})[side] = {
                "settings": measured.settings[name],
                "notes": outcome.notes,
                "answers": len(outcome.samples),
                **({"facts": outcome.facts} if outcome.facts else {}),
            }
        for name, why in measured.refused.items():
            # A later call that cannot run takes nothing away from one that did.
            if "settings" not in found.setdefault(name, {}).get(side, {}):
                found[name][side] = {"not_run": why}
    write_json(run_dir / EVALUATIONS, found)
    for name, outcome in after.outcomes.items():
        _write_rows(run_dir / "evals" / f"{name}.jsonl", outcome.samples)
    for name, outcome in sides["before"].outcomes.items():
        _write_rows(run_dir / "evals" / f"base_{name}.jsonl", outcome.samples)
    _write_side_by_side(run_dir / "samples.jsonl", after, sides["before"])
    base = {f"base/{key}": value for key, value in sides["before"].metrics.items()}
    return after.metrics | _against_start(sides["after"], sides["before"]) | base


def _against_start(after: Measured, before: Measured) -> dict[str, float]:
    """What takes the answers of both: MT-Bench's grades turn by turn."""
    sides = [measured.outcomes.get("mt_bench") for measured in (after, before)]
    if sides[0] is None or sides[1] is None:
        return {}
    found = against_start(sides[0].samples, sides[1].samples)
    return {f"eval/mt_bench/against_start/{key}": value for key, value in found.items()}


def without(metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The numbers but those of these benchmarks, which were measured again."""
    old = tuple(f"{base}eval/{name}/" for name in names for base in ("", "base/"))
    return {key: value for key, value in metrics.items() if not key.startswith(old)}


def publish(log: WandbLog, metrics: Mapping[str, float], after: Measured) -> None:
    """Sends the numbers, and a table of the first answers of each benchmark."""
    log.summary(metrics)
    for name, outcome in after.outcomes.items():
        columns = ["prompt", "response", "verdict"]
        rows = [
            [_turns(row.get("prompt"))[-1].get("content"), row.get("response"), row.get("verdict")]
            for row in outcome.samples[:SHOWN_IN_WANDB]
        ]
        if rows:
            log.table(f"samples/{name}", columns, rows, 0)
        for title, table in outcome.facts.get("tables", {}).items():
            log.table(f"{name}/{title}", table["columns"], table["rows"], 0)


def _evaluations(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, text)


def _write_side_by_side(path: Path, after: Measured, before: Measured) -> None:
    """Rows of other benchmarks, and of the validation prompts, stay as they are."""
    kept: list[Mapping[str, Any]] = []
    if not after.outcomes:
        return
    if path.is_file():
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        kept = [row for row in rows if row.get("benchmark") not in after.outcomes]
    for name, outcome in after.outcomes.items():
        earlier = before.outcomes.get(name, Outcome({})).samples
        for place, row in enumerate(outcome.samples):
            same = place < len(earlier) and earlier[place].get("prompt") == row.get("prompt")
            kept.append(_side_by_side(name, row, earlier[place] if same else {}))
    _write_rows(path, kept)


def _side_by_side(name: str, after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prompt": _turns(after.get("prompt")),
        "category": name,
        "benchmark": name,
        "dataset": name,
        "origin": after.get("origin"),
        "answer": after.get("answer"),
        "chosen": None,
        "rejected": None,
        "before": before.get("response"),
        "after": after.get("response"),
        "verdict_before": before.get("verdict"),
        "verdict_after": after.get("verdict"),
    }


def _turns(prompt: Any) -> list[dict[str, Any]]:
    """A prompt as chat messages: a text, or ids, as one turn."""
    if isinstance(prompt, list) and prompt and all(isinstance(turn, dict) for turn in prompt):
        return prompt
    return [{"role": "user", "content": "" if prompt is None else str(prompt)}]
