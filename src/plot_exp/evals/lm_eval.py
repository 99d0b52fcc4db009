"""Tasks of EleutherAI's lm-eval on the policy in this process; the optional extra `lm-eval`."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from plot_exp.config.evals import LMEvalConfig
from plot_exp.errors import UserError
from plot_exp.evals.base import CannotRunError, Outcome, Subject, Tools, Workspace
from plot_exp.evals.intervals import NORMAL_QUANTILE, wilson_interval
from plot_exp.evals.record import Record
from plot_exp.models.policy import Policy

# More would make the file of samples larger than all else: lm-eval's tasks have up to 14,000.
SAMPLES_A_TASK = 100


@dataclass(frozen=True)
class LMEval:
    """See `Benchmark`."""

    config: LMEvalConfig
    version: str
    name: str = "lm_eval"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        return {**self.config.model_dump(mode="json"), "version": self.version}

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`; a task that cannot be run is named in the notes, and others go on."""
        policy, tokeniser = subject.weights("lm_eval")
        assert subject.local is not None
        done = Record(workspace.folder / "tasks.jsonl")
        failed: dict[str, str] = {}
        tasks = self.config.shots()
        index = cache(self._index)  # reading lm-eval's thousands of task files takes seconds
        with _left_alone(policy):
            for task, shots in workspace.bar(tasks.items(), "lm-eval tasks"):
                if task in done:
                    continue
                try:
                    found = self._evaluate(
                        policy, tokeniser.tokenizer, task, shots, subject.local.batch_size, index()
                    )
                except Exception as error:  # a task's data, code and metrics may raise anything
                    failed[task] = _first_line(error)
                    continue
                done.add(task, found)
        if len(failed) == len(tasks):
            reasons = "; ".join(f"{task}: {why}" for task, why in failed.items())
            raise CannotRunError(f"lm-eval could run none of its tasks ({reasons})")
        return self._outcome(done, failed)

    def _index(self) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=self.config.include_path)

    def _evaluate(
        self,
        policy: Policy,
        tokenizer: Any,
        task: str,
        shots: int | None,
        batch_size: int,
        index: Any,
    ) -> dict[str, Any]:
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        model = HFLM(pretrained=policy.model, tokenizer=tokenizer, batch_size=batch_size)
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=[task],
            num_fewshot=shots,
            limit=self.config.limit,
            apply_chat_template=self.config.chat_template,
            task_manager=index,
        )
        return {"metrics": metrics_of(results), "samples": samples_of(results)}

    def _outcome(self, done: Record, failed: Mapping[str, str]) -> Outcome:
        metrics: dict[str, float] = {}
        samples: list[dict[str, Any]] = []
        for task in self.config.shots():
            if task in done:
                metrics |= {f"lm_eval/{key}": one for key, one in done[task]["metrics"].items()}
                samples += done[task]["samples"]
        notes = [f"lm-eval {self.version}: {', '.join(self.config.tasks)}."]
        notes += [f"lm-eval's {task} could not be run: {why}" for task, why in failed.items()]
        return Outcome(metrics, samples, notes, complete=not failed)


def build(settings: LMEvalConfig, tools: Tools) -> LMEval:
    """See `Benchmark`."""
    if not settings.tasks:
        raise UserError(
            "eval.lm_eval.tasks is empty: write, say, eval.lm_eval.tasks=[arc_challenge@25]"
        )
    try:
        from importlib.metadata import version

        import lm_eval  # noqa: F401
    except ImportError as error:
        raise CannotRunError(
            f"lm-eval is not installed ({error}): pip install 'plot-exp[lm-eval]'"
        ) from error
    return LMEval(settings, version("lm_eval"))


def metrics_of(results: Mapping[str, Any]) -> dict[str, float]:
    """`TASK/METRIC` and `TASK/METRIC/FILTER`, with count and a 95 % interval."""
    metrics: dict[str, float] = {}
    for task, found in results["results"].items():
        for name, value in found.items():
            metric, _, chosen = name.partition(",")
            if metric.endswith("_stderr") or not _is_number(value) or not chosen:
                continue
            key = f"{task}/{metric}" if chosen == "none" else f"{task}/{metric}/{chosen}"
            metrics[key] = float(value)
            error = found.get(f"{metric}_stderr,{chosen}")
            metrics |= _with_interval(key, float(value), _count(results, task), error)
    return metrics


def _with_interval(key: str, value: float, count: int, error: Any) -> dict[str, float]:
    """Count and interval: Wilson's for a share of documents, else from lm-eval's standard error."""
    found: dict[str, float] = {f"{key}/count": float(count)} if count else {}
    if not _is_number(error):
        return found
    right = value * count
    if count and 0 <= value <= 1 and abs(right - round(right)) < 1e-6:
        low, high = wilson_interval(round(right), count)
    else:
        half = NORMAL_QUANTILE * float(error)
        low, high = value - half, value + half
    return found | {f"{key}/low": low, f"{key}/high": high}


def samples_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first documents of each task: what was asked, what came back, and its metrics."""
    rows = []
    for task, documents in (results.get("samples") or {}).items():
        for document in documents[:SAMPLES_A_TASK]:
            values = {name: document.get(name) for name in document.get("metrics", ())}
            rows.append(
                {
                    "prompt": _prompt(document),
                    "asked": None,  # the prompt holds shots and a task's own words
                    "response": _plain(document.get("filtered_resps")),
                    "verdict": ", ".join(f"{name} {value}" for name, value in values.items()),
                    "answer": _plain(document.get("target")),
                    "task": task,
                }
            )
    return rows


def _prompt(document: Mapping[str, Any]) -> str:
    """The context of a document's first request, from either form that lm-eval logs."""
    arguments = document.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = list(next(iter(arguments.values()), {}).values())
    elif arguments:
        arguments = arguments[0]
    return str(arguments[0]) if arguments else ""


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _count(results: Mapping[str, Any], task: str) -> int:
    """Documents of a task, or of all tasks of a group."""
    counts = results.get("n-samples", {})
    if task in counts:
        return int(counts[task]["effective"])
    members = results.get("group_subtasks", {}).get(task, [])
    return sum(_count(results, member) for member in members)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _left_alone(policy: Policy) -> Iterator[None]:
    """lm-eval seeds every generator there is, and leaves the model in eval mode."""
    training, states = policy.training, (random.getstate(), np.random.get_state())
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            policy.train(training)
