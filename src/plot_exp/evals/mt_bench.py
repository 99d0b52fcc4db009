"""MT-Bench (Zheng et al. 2023, arXiv 2306.05685): two turns, graded one by one by a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plot_exp.config.benchmarks import MTBenchConfig
from plot_exp.data.examples import Message
from plot_exp.errors import UserError
from plot_exp.evals.base import Outcome, Subject, Tools, Workspace
from plot_exp.evals.mt_bench_questions import TURNS, Question, read_questions
from plot_exp.evals.mt_bench_scores import Graded, scores, unreadable_notes
from plot_exp.evals.published import digest, find_folder
from plot_exp.evals.record import Record
from plot_exp.evals.selection import spread
from plot_exp.generators.base import Completion, Each, Generator, Sampling
from plot_exp.judges.mt_bench import SingleAnswerPrompts, read_grade

FOLDER = "mt_bench"


def build(settings: MTBenchConfig, tools: Tools) -> MTBench:
    """See `Benchmark`.

    Raises:
        CannotRunError: neither data nor a judge are there.
        UserError: a file cannot be used, or a category is unknown.
    """
    questions, folder = read(settings)
    return MTBench(
        questions,
        SingleAnswerPrompts(folder / "judge_prompts.jsonl"),
        tools.open_judge(settings.judge, "MT-Bench"),
        settings.max_new_tokens,
        settings.judge_tokens,
    )


def read(settings: MTBenchConfig) -> tuple[list[Question], Path]:
    """The questions that are asked, and the folder they come from.

    Raises:
        CannotRunError: there are no data.
        UserError: a file cannot be used, or a category is unknown.
    """
    folder = find_folder(settings.path, FOLDER, "eval.mt_bench.path", "MT-Bench")
    questions = read_questions(
        folder / "question.jsonl", folder / "reference_answer" / "gpt-4.jsonl"
    )
    if settings.categories is not None:
        questions = _of(settings.categories, questions)
    return spread(questions, lambda question: question.category, settings.limit), folder


def _of(categories: Sequence[str], questions: Sequence[Question]) -> list[Question]:
    known = list(dict.fromkeys(question.category for question in questions))
    unknown = [category for category in categories if category not in known]
    if unknown or not categories:
        raise UserError(
            f"eval.mt_bench.categories={list(categories)}: expected some of {', '.join(known)}"
        )
    return [question for question in questions if question.category in categories]


@dataclass(frozen=True)
class MTBench:
    """See `Benchmark`.

    Attributes:
        judge: grades the answers.
        judge_tokens: that the judge may write.
    """

    questions: Sequence[Question]
    prompts: SingleAnswerPrompts
    judge: Generator
    max_new_tokens: int = 1024
    judge_tokens: int = 2048
    name: str = "mt_bench"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        content = [[asdict(question) for question in self.questions], self.prompts.plain()]
        return {
            "max_new_tokens": self.max_new_tokens,
            "judge": self.judge.name,
            "judge_tokens": self.judge_tokens,
            "data": digest(content),
        }

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`."""
        answers = Record(workspace.folder / "answers.jsonl")
        for turn in range(1, TURNS + 1):
            self._answer(subject.generator, answers, turn, workspace)
        judgements = Record(workspace.folder / "judgements.jsonl")
        self._judge(self.judge, answers, judgements, workspace)
        graded = [
            Graded(
                question.id,
                question.category,
                turn,
                answers[_key(question, turn)]["text"],
                read_grade(judgements[_key(question, turn)]["text"]),
            )
            for question in self.questions
            for turn in range(1, TURNS + 1)
        ]
        metrics = {f"mt_bench/{key}": value for key, value in scores(graded).items()}
        notes = [f"MT-Bench: {len(self.questions)} questions graded by {self.judge.name}."]
        samples = self._samples(graded, judgements)
        return Outcome(metrics, samples, notes + unreadable_notes(graded))

    def _answer(
        self, generator: Generator, answers: Record, turn: int, workspace: Workspace
    ) -> None:
        """One turn of every question that has none yet, questions of one temperature together."""
        waiting: dict[float, list[Question]] = {}
        for question in self.questions:
            if _key(question, turn) not in answers:
                waiting.setdefault(question.temperature, []).append(question)
        for temperature, group in waiting.items():
            sampling = Sampling(
                temperature, max_new_tokens=self.max_new_tokens, seed=workspace.seed
            )
            generator(
                [_dialogue(question, turn, answers) for question in group],
                sampling,
                bar=workspace.bar,
                label=f"MT-Bench, turn {turn}",
                each=_writer(answers, [_key(question, turn) for question in group]),
            )

    def _judge(
        self, judge: Generator, answers: Record, judgements: Record, workspace: Workspace
    ) -> None:
        asked = {
            _key(question, turn): (question, turn)
            for question in self.questions
            for turn in range(1, TURNS + 1)
            if _key(question, turn) not in judgements
        }
        dialogues = [
            self.prompts.messages(
                question.turns,
                [answers[_key(question, number)]["text"] for number in range(1, turn + 1)],
                question.reference,
            )
            for question, turn in asked.values()
        ]
        judge(
            dialogues,
            Sampling(max_new_tokens=self.judge_tokens),
            bar=workspace.bar,
            label="MT-Bench, grading",
            each=_writer(judgements, list(asked)),
        )

    def _samples(self, graded: Sequence[Graded], judgements: Record) -> list[dict[str, Any]]:
        turns = {question.id: question.turns for question in self.questions}
        return [
            {
                "prompt": turns[one.question][one.turn - 1],
                "response": one.answer,
                "verdict": f"{one.grade.value:g}" if one.grade.value else one.grade.why,
                "category": one.category,
                "question": one.question,
                "turn": one.turn,
                "grade": one.grade.value,
                "judgement": judgements[f"{one.question}/{one.turn}"]["text"],
            }
            for one in graded
        ]


def _key(question: Question, turn: int) -> str:
    return f"{question.id}/{turn}"


def _dialogue(question: Question, turn: int, answers: Record) -> list[Message]:
    messages = [Message("user", question.turns[0])]
    for number in range(2, turn + 1):
        answer = answers[_key(question, number - 1)]["text"]
        messages += [Message("assistant", answer), Message("user", question.turns[number - 1])]
    return messages


def _writer(record: Record, keys: Sequence[str]) -> Each:
    """Keeps the first completion of each prompt as soon as it is there."""

    def write(place: int, completions: list[Completion]) -> None:
        record.add(keys[place], {"text": completions[0].text, "finish": completions[0].finish})

    return write
