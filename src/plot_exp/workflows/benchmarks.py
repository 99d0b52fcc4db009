"""Benchmarks on one subject: what was finished before is taken again, what cannot run says why."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from plot_exp.config.evals import BENCHMARKS, EvalConfig
from plot_exp.data.examples import Message
from plot_exp.data.overlap import prompt_hash
from plot_exp.errors import RunError, UserError
from plot_exp.evals.base import Benchmark, CannotRunError, Outcome, Subject, Tools, Workspace
from plot_exp.files import write_json
from plot_exp.progress import Bar
from plot_exp.redaction import redact

FINISHED = "outcome.json"


@dataclass
class Opened:
    """The benchmarks of a choice of `eval`, and why others cannot run, by name."""

    benchmarks: list[Benchmark] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class Measured:
    """What a subject's benchmarks found.

    Attributes:
        outcomes: of those that were run, by name.
        settings: what made them.
        refused: why others could not be run.
        broken: those of them that had begun; the same command goes on with them.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    @property
    def metrics(self) -> dict[str, float]:
        """Every number, as `eval/...`."""
        return {
            f"eval/{key}": value
            for outcome in self.outcomes.values()
            for key, value in outcome.metrics.items()
        }


def chosen(config: EvalConfig) -> list[str]:
    """The names of the benchmarks whose section is there."""
    return [name for name in BENCHMARKS if getattr(config, name) is not None]


def open_benchmarks(config: EvalConfig, tools: Tools) -> Opened:
    """Reads every benchmark's data, before any model answers anything.

    Raises:
        UserError: a setting is wrong.
    """
    opened = Opened()
    for name in chosen(config):
        module = importlib.import_module(f"plot_exp.evals.{name}")
        try:
            opened.benchmarks.append(module.build(getattr(config, name), tools))
        except CannotRunError as error:
            opened.refused[name] = redact(str(error))
    return opened


def measure(
    opened: Opened,
    subject: Subject,
    folder: Path,
    *,
    reference: str,
    trained_on: frozenset[str],
    bar: Bar,
    seed: int,
) -> Measured:
    """Runs every benchmark on the subject, or takes what an earlier call finished.

    Args:
        folder: of all subjects' work; it may be shared by runs.
        reference: the identity of `subject.reference`, or an empty string.
        trained_on: the hashes of the subject's training prompts.
    """
    measured = Measured(refused=dict(opened.refused))
    for benchmark in opened.benchmarks:
        settings = {"seed": seed, **json.loads(json.dumps(benchmark.settings, default=str))}
        place = folder / benchmark.name / _digest([subject.identity, reference, settings])
        try:
            outcome = _finished(place) or benchmark.run(subject, Workspace(place, bar, seed))
        except CannotRunError as error:
            measured.refused[benchmark.name] = redact(str(error))
            continue
        except (RunError, UserError) as error:
            measured.refused[benchmark.name] = redact(str(error))
            measured.broken.add(benchmark.name)
            continue
        if outcome.complete:
            write_json(place / FINISHED, asdict(outcome))
        measured.outcomes[benchmark.name] = _with_overlap(benchmark.name, outcome, trained_on)
        measured.settings[benchmark.name] = settings
    return measured


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _finished(place: Path) -> Outcome | None:
    """The outcome that an earlier call wrote; a damaged one counts as none."""
    try:
        content = json.loads((place / FINISHED).read_text(encoding="utf-8"))
        return Outcome(**content)
    except (OSError, ValueError, TypeError):
        return None


def _with_overlap(name: str, outcome: Outcome, trained_on: frozenset[str]) -> Outcome:
    """The outcome with the count of its prompts that also stand in the training data."""
    prompts = {prompt_hash(prompt) for prompt in _prompts(outcome.samples)}
    if not trained_on or not prompts:
        return outcome
    shared = len(prompts & trained_on)
    note = f"{shared} of its {len(prompts)} prompts also stand in the run's training data."
    metrics = {**outcome.metrics, f"{name}/overlap": float(shared)}
    return replace(outcome, metrics=metrics, notes=[*outcome.notes, f"{name}: {note}"])


def _prompts(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Message]]:
    """What each row asked: its bare question where it names one, else its dialogue or text."""
    for row in rows:
        prompt = row.get("asked", row.get("prompt"))
        if isinstance(prompt, str):
            yield [Message("user", prompt)]
        elif isinstance(prompt, list) and all(isinstance(turn, dict) for turn in prompt):
            yield [Message(turn["role"], turn["content"]) for turn in prompt]
