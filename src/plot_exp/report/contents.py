"""What stands in a run directory, and why something does not."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plot_exp.errors import UserError
from plot_exp.files import reason
from plot_exp.reading import plain_yaml

Series = tuple[list[int], list[float]]

WHY_ABSENT = {
    "config.yaml": "the run ended before it was set up",
    "environment.json": "the run ended before it was set up",
    "metrics.json": "the run has not come to its end, or evaluation was off",
    "metrics.csv": "no step was logged",
    "samples.jsonl": "nothing was generated (`eval.generations=0`, or the run has not ended)",
    "data.json": "the run ended before its data were read",
    "evaluations.json": "no benchmark was run (`task=evaluate run=... eval=...`)",
    "preference_distribution.json": "it takes pairs to train on and held-out examples",
}


@dataclass
class Contents:
    """The files of a run, each None where it is absent or cannot be read.

    Attributes:
        metrics: `metrics.json`: flat keys to finite numbers.
        history: `metrics.csv`: a column's steps and values where it was measured.
        missing: one reason for each file that is None.
    """

    run_dir: Path
    config: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    metrics: dict[str, float] | None = None
    history: dict[str, Series] | None = None
    samples: list[dict[str, Any]] | None = None
    data: dict[str, Any] | None = None
    distribution: dict[str, Any] | None = None
    evaluations: dict[str, Any] | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def left_out(self, *names: str) -> str:
        """The sentence in place of what these files would have shown."""
        reasons = [f"`{name}`: {self.missing[name]}" for name in names if name in self.missing]
        return "*Left out. " + "; ".join(reasons) + ".*"

    def setting(self, path: str, default: Any = None) -> Any:
        """A value of the configuration by its dotted key."""
        value: Any = self.config
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run directory."""
    return (folder / "config.yaml").is_file() and any(
        (folder / name).is_file() for name in ("environment.json", "metrics.csv", "metrics.json")
    )


def read(run_dir: Path) -> Contents:
    """Reads what is there.

    Raises:
        UserError: `run_dir` is no folder, or holds none of a run's files.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: there is no such folder; name a run directory.")
    contents = Contents(run_dir)
    readers: dict[str, Callable[[str], Any]] = {
        "config.yaml": _mapping(plain_yaml),
        "environment.json": _mapping(json.loads),
        "metrics.json": _metrics,
        "metrics.csv": _history,
        "samples.jsonl": _samples,
        "data.json": _mapping(json.loads),
        "preference_distribution.json": _mapping(json.loads),
        "evaluations.json": _mapping(json.loads),
    }
    for name, parse in readers.items():
        attribute = {"metrics.csv": "history", "preference_distribution.json": "distribution"}.get(
            name, name.partition(".")[0]
        )
        try:
            setattr(contents, attribute, parse((run_dir / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            contents.missing[name] = f"not there ({WHY_ABSENT[name]})"
        except OSError as error:
            contents.missing[name] = f"could not be read ({reason(error)})"
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            contents.missing[name] = f"is damaged ({first})"
    if len(contents.missing) == len(readers):
        raise UserError(
            f"{run_dir}: this is no run directory: it holds none of {', '.join(readers)}."
        )
    return contents


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree of settings, by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _mapping(load: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    def parse(text: str) -> dict[str, Any]:
        value = load(text)
        if not isinstance(value, dict):
            raise ValueError("expected keys and values")
        return value

    return parse


def _metrics(text: str) -> dict[str, float]:
    numbers = _mapping(json.loads)(text)
    return {
        key: value
        for key, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _history(text: str) -> dict[str, Series]:
    history: dict[str, Series] = {}
    lines = text.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    for row in csv.DictReader(whole):
        for name, field_ in row.items():
            if name and name != "step" and field_:
                steps, values = history.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(float(field_))
    if not history:
        raise ValueError("it holds no values")
    return history


def _samples(text: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one object a line")
    if not rows:
        raise ValueError("it is empty")
    return rows
