"""What benchmarks with gold final answers share: prompts, answers that are kept, rows."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from plot_exp.config.evals import GradedConfig
from plot_exp.data.examples import Message
from plot_exp.evals.base import Outcome, Subject, Workspace
from plot_exp.evals.intervals import summarise
from plot_exp.evals.problems import Problem
from plot_exp.evals.record import Record
from plot_exp.generators.base import Completion, Prompt, Sampling

# What one answer is worth by key, and in words for a person.
Verdict = tuple[dict[str, float], str]


@dataclass
class Graded:
    """See `Benchmark`.

    Attributes:
        title: what a person reads.
        prompts: one for each problem.
        grade: the verdict on a response to a problem.
        by_group: the key of a verdict that is split by the problems' groups.
    """

    name: str
    title: str
    problems: Sequence[Problem]
    prompts: Sequence[Prompt]
    sampling: Sampling
    grade: Callable[[Problem, str], Verdict]
    by_group: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        asked = [
            [_plain(prompt), problem.answer]
            for prompt, problem in zip(self.prompts, self.problems, strict=True)
        ]
        content = json.dumps(asked).encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(content).hexdigest()
        return {**self.facts, "sampling": asdict(self.sampling), "data": digest}

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`."""
        answers = self._answers(subject, workspace)
        verdicts = self._verdicts(answers, workspace)
        metrics = self._metrics(answers, verdicts)
        notes = [f"{self.title}: {' '.join(self.notes)}"]
        if cut := sum(answers[place]["cut"] for place in range(len(self.problems))):
            notes.append(f"{self.title}: {cut} prompts were too long and lost their oldest part.")
        if late := sum(row["words"] == NOT_IN_TIME for row in verdicts):
            notes.append(
                f"{self.title}: {late} answers could not be compared in time and count as wrong."
            )
        return Outcome(metrics, self._samples(answers, verdicts), notes)

    def _answers(self, subject: Subject, workspace: Workspace) -> Record:
        answers = Record(workspace.folder / "answers.jsonl")
        waiting = [place for place in range(len(self.problems)) if place not in answers]

        def write(place: int, found: list[Completion]) -> None:
            (one,) = found
            tokens = len(one.ids) if one.ids else None
            row = {"text": one.text, "finish": one.finish, "tokens": tokens, "cut": one.cut}
            answers.add(waiting[place], row)

        subject.generator(
            [self.prompts[place] for place in waiting],
            self.sampling,
            bar=workspace.bar,
            label=f"answering {self.title}",
            each=write,
        )
        return answers

    def _verdicts(self, answers: Record, workspace: Workspace) -> list[dict[str, Any]]:
        """Verdicts are kept too: comparing expressions takes its time."""
        known = Record(workspace.folder / "verdicts.jsonl")
        for place, problem in enumerate(
            workspace.bar(self.problems, f"grading {self.title}", len(self.problems))
        ):
            if place not in known:
                values, words = self.grade(problem, answers[place]["text"])
                known.add(place, {"values": values, "words": words})
        return [known[place] for place in range(len(self.problems))]

    def _metrics(self, answers: Record, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        values: dict[str, list[float]] = defaultdict(list)
        for place, (problem, verdict) in enumerate(zip(self.problems, verdicts, strict=True)):
            for key, value in verdict["values"].items():
                values[key].append(value)
                if key == self.by_group:
                    for group in problem.groups:
                        values[f"{key}/{group}"].append(value)
            row = answers[place]
            values["finished"].append(float(row["finish"] == "stop"))
            if row["tokens"] is not None:
                values["response_length"].append(float(row["tokens"]))
        metrics: dict[str, float] = {}
        for key, numbers in values.items():
            metrics |= summarise(f"{self.name}/{key}", numbers, rate=key != "response_length")
        return metrics

    def _samples(
        self, answers: Record, verdicts: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        return [
            {
                "prompt": _plain(prompt),
                "asked": problem.question,
                "response": answers[place]["text"],
                "verdict": verdict["words"],
                "answer": problem.answer,
                "groups": list(problem.groups),
                "origin": problem.origin,
                "finish": answers[place]["finish"],
                **verdict["values"],
            }
            for place, (problem, prompt, verdict) in enumerate(
                zip(self.problems, self.prompts, verdicts, strict=True)
            )
        ]


NOT_IN_TIME = "not compared in time"


def sampling_of(settings: GradedConfig, stop: tuple[str, ...] = ()) -> Sampling:
    """The section's sampling."""
    return Sampling(
        settings.temperature, settings.top_p, settings.max_new_tokens, stop, settings.seed
    )


def dialogue(problem: Problem, shots: Sequence[tuple[str, str]], instruction: str) -> list[Message]:
    """Shots as earlier turns, and the problem; the instruction stands behind every question."""
    behind = f"\n\n{instruction}" if instruction else ""
    messages: list[Message] = []
    for question, solution in shots:
        messages += [Message("user", question + behind), Message("assistant", solution)]
    return [*messages, Message("user", problem.question + behind)]


def _plain(prompt: Prompt) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [
        {"role": turn.role, "content": turn.content} if isinstance(turn, Message) else turn
        for turn in prompt
    ]
