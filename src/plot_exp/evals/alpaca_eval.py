"""AlpacaEval 2 (arXiv 2404.04475): a judge compares the model's answers with a baseline's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from plot_exp.config.benchmarks import AlpacaEvalConfig
from plot_exp.data.examples import Message
from plot_exp.evals.alpaca_eval_files import open_tables
from plot_exp.evals.alpaca_eval_records import DRAW, Annotation, Output, read_annotations
from plot_exp.evals.alpaca_eval_scores import score
from plot_exp.evals.base import Outcome, Subject, Tools, Workspace
from plot_exp.evals.length_control_tables import Tables
from plot_exp.evals.published import digest
from plot_exp.evals.record import Record
from plot_exp.evals.selection import spread
from plot_exp.files import write_json
from plot_exp.generators.base import Completion, Generator, Sampling
from plot_exp.judges.alpaca import (
    OWN_PROMPT_NAME,
    PairPrompt,
    first_is_model,
    own_prompt,
    read_prompt,
    share_of_second,
)

TOP_LOGPROBS = 5


def build(settings: AlpacaEvalConfig, tools: Tools) -> AlpacaEval | PublishedAnnotations:
    """See `Benchmark`.

    Raises:
        CannotRunError: neither data nor a judge are there.
        UserError: a file cannot be used.
    """
    if settings.annotations is not None:
        annotations = read_annotations(Path(settings.annotations).expanduser())
        return PublishedAnnotations(annotations, open_tables(settings.path, required=False)[0])
    tables, baseline = read(settings)
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)
    prompt = own_prompt(settings.labels)
    if settings.prompt is not None:
        prompt = read_prompt(Path(settings.prompt).expanduser(), settings.labels)
    return AlpacaEval(
        baseline,
        tables,
        tools.open_judge(settings.judge, "AlpacaEval"),
        prompt,
        sampling,
        settings.judge_tokens,
    )


def read(settings: AlpacaEvalConfig) -> tuple[Tables, list[Output]]:
    """The tables of the length control, and the baseline's outputs to what is asked.

    Raises:
        CannotRunError: there are no data.
        UserError: a file cannot be used.
    """
    tables, baseline = open_tables(settings.path)
    return tables, spread(baseline, lambda output: output.dataset, settings.limit)


@dataclass(frozen=True)
class AlpacaEval:
    """See `Benchmark`.

    Attributes:
        baseline: one output an instruction; these are the instructions that are answered.
        judge: compares the outputs.
        sampling: of the model's answers.
        judge_tokens: that the judge may write.
    """

    baseline: Sequence[Output]
    tables: Tables
    judge: Generator
    prompt: PairPrompt
    sampling: Sampling
    judge_tokens: int = 1
    name: str = "alpaca_eval"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        content = [
            [astuple(output) for output in self.baseline],
            sorted(self.tables.difficulty.items()),
            self.tables.gamed is not None,
        ]
        return {
            "sampling": asdict(self.sampling),
            "judge": self.judge.name,
            "judge_tokens": self.judge_tokens,
            "prompt": self.prompt.digest,
            "data": digest(content),
        }

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`; leaves the outputs and annotations in the published format as well."""
        answers = Record(workspace.folder / "answers.jsonl")
        self._answer(subject.generator, answers, workspace)
        verdicts = Record(workspace.folder / "verdicts.jsonl")
        self._judge(self.judge, answers, verdicts, workspace)
        annotations = [
            self._annotation(output, answers, verdicts, subject.name) for output in self.baseline
        ]
        _publish(annotations, workspace)
        found = score(annotations, self.tables)
        metrics = {f"alpaca_eval/{key}": value for key, value in found.metrics.items()}
        samples = [_sample(one, verdicts[one.instruction]["text"]) for one in annotations]
        return Outcome(metrics, samples, [self._how(verdicts), *found.notes])

    def _answer(self, generator: Generator, answers: Record, workspace: Workspace) -> None:
        waiting = [one.instruction for one in self.baseline if one.instruction not in answers]

        def write(place: int, completions: list[Completion]) -> None:
            row = {"text": completions[0].text, "finish": completions[0].finish}
            answers.add(waiting[place], row)

        generator(
            [[Message("user", instruction)] for instruction in waiting],
            replace(self.sampling, seed=workspace.seed),
            bar=workspace.bar,
            label="AlpacaEval, answering",
            each=write,
        )

    def _judge(
        self, judge: Generator, answers: Record, verdicts: Record, workspace: Workspace
    ) -> None:
        """Which of the two each instruction's judge prefers; equal answers are a draw unasked."""
        waiting = []
        for one in self.baseline:
            if one.instruction in verdicts:
                continue
            if answers[one.instruction]["text"] == one.output:
                verdicts.add(one.instruction, {"share": DRAW - 1, "text": None})
            else:
                waiting.append(one)
        swapped = [first_is_model(one.instruction, workspace.seed) for one in waiting]

        def write(place: int, completions: list[Completion]) -> None:
            share = share_of_second(completions[0], self.prompt.labels)
            if swapped[place] and share is not None:
                share = 1 - share
            row = {
                "share": share,
                "text": completions[0].text,
                "model_first": swapped[place],
                "weighed": bool(completions[0].top_logprobs),
            }
            verdicts.add(waiting[place].instruction, row)

        judge(
            [
                self._question(one, answers[one.instruction]["text"], first)
                for one, first in zip(waiting, swapped, strict=True)
            ],
            Sampling(max_new_tokens=self.judge_tokens, top_logprobs=TOP_LOGPROBS),
            bar=workspace.bar,
            label="AlpacaEval, judging",
            each=write,
        )

    def _question(self, baseline: Output, answer: str, model_first: bool) -> Sequence[Message]:
        outputs = (answer, baseline.output) if model_first else (baseline.output, answer)
        return self.prompt.messages(baseline.instruction, *outputs)

    def _annotation(
        self, baseline: Output, answers: Record, verdicts: Record, model: str
    ) -> Annotation:
        share = verdicts[baseline.instruction]["share"]
        return Annotation(
            baseline.instruction,
            baseline.output,
            answers[baseline.instruction]["text"],
            None if share is None else 1 + share,
            baseline.generator,
            model,
            f"{self.judge.name}, prompt {self.prompt.name}",
            baseline.dataset,
        )

    def _how(self, verdicts: Record) -> str:
        rows = [verdicts[one.instruction] for one in self.baseline]
        asked = [row for row in rows if row["text"] is not None]
        weighed = sum(row["weighed"] for row in asked)
        note = (
            f"AlpacaEval: {len(rows)} instructions against {self.baseline[0].generator}, judged by "
            f"{self.judge.name}; {weighed} of {len(asked)} verdicts are weighed by log-probability."
        )
        if self.prompt.name == OWN_PROMPT_NAME:
            note += (
                " The judge's prompt is this project's own, so that the numbers do not compare "
                "with the published leaderboard."
            )
        return note


@dataclass(frozen=True)
class PublishedAnnotations:
    """See `Benchmark`: a published model's annotations, scored again; no model is asked."""

    annotations: Sequence[Annotation]
    tables: Tables
    name: str = "alpaca_eval"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        first = self.annotations[0]
        difficulty = [self.tables.difficulty.get(one.instruction) for one in self.annotations]
        weights = self.tables.weights.get(first.model_name)
        return {
            "model": first.model_name,
            "judge": first.annotator,
            "annotations": digest([astuple(one) for one in self.annotations]),
            "tables": digest(
                [difficulty, weights and astuple(weights), self.tables.gamed is not None]
            ),
        }

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`."""
        found = score(self.annotations, self.tables)
        metrics = {f"alpaca_eval/{key}": value for key, value in found.metrics.items()}
        first = self.annotations[0]
        note = f"AlpacaEval: published annotations of {first.model_name} by {first.annotator}."
        samples = [_sample(one, None) for one in self.annotations]
        return Outcome(metrics, samples, [note, *found.notes])


def _publish(annotations: Sequence[Annotation], workspace: Workspace) -> None:
    """The files that AlpacaEval's own tools read."""
    outputs = [
        {
            "dataset": one.dataset,
            "instruction": one.instruction,
            "output": one.model,
            "generator": one.model_name,
        }
        for one in annotations
    ]
    write_json(workspace.folder / "model_outputs.json", outputs)
    rows = [
        {
            "dataset": one.dataset,
            "instruction": one.instruction,
            "output_1": one.baseline,
            "output_2": one.model,
            "generator_1": one.baseline_name,
            "generator_2": one.model_name,
            "annotator": one.annotator,
            "preference": one.preference,
        }
        for one in annotations
    ]
    write_json(workspace.folder / "annotations.json", rows)


def _sample(annotation: Annotation, judgement: str | None) -> dict[str, Any]:
    preference = annotation.preference
    verdict = "unreadable" if preference is None else f"preferred {preference - 1:.2f}"
    return {
        "prompt": annotation.instruction,
        "response": annotation.model,
        "verdict": verdict,
        "category": annotation.dataset,
        "baseline": annotation.baseline,
        "preference": preference,
        "judgement": judgement,
    }
