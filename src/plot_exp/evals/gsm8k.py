"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): the strict and the flexible final answer."""

from __future__ import annotations

from plot_exp.config.evals import GSM8KConfig
from plot_exp.data.rejected.calculator import without_notes
from plot_exp.evals.base import Tools
from plot_exp.evals.graded import Graded, Verdict, dialogue, sampling_of
from plot_exp.evals.problems import Problem, Problems, read_gsm8k
from plot_exp.generators.base import Prompt
from plot_exp.judges.answers import extract_flexible, extract_strict

# Where a base model begins to ask itself the next question.
STOPS = ("Question:",)


def build(settings: GSM8KConfig, tools: Tools) -> Graded:
    """See `Benchmark`."""
    problems = read_gsm8k(settings)
    chat = settings.form == "chat"
    shots = problems.shots(settings.shots, settings.seed)
    return Graded(
        "gsm8k",
        "GSM8K",
        problems.test,
        [_prompt(settings, problem, shots) for problem in problems.test],
        sampling_of(settings, () if chat else STOPS),
        grade,
        facts={"form": settings.form, "shots": settings.shots},
        notes=_notes(settings, problems),
    )


def grade(problem: Problem, response: str) -> Verdict:
    """`strict`: the number behind the first `####`; `flexible`: the last number in the text."""
    strict = extract_strict(response) == problem.answer
    flexible = extract_flexible(response) == problem.answer
    words = "correct" if strict else "correct by its last number only" if flexible else "wrong"
    return {"strict": float(strict), "flexible": float(flexible)}, words


def _prompt(settings: GSM8KConfig, problem: Problem, shots: list[Problem]) -> Prompt:
    if settings.form == "chat":
        solved = [(shot.question, without_notes(shot.solution)) for shot in shots]
        return dialogue(problem, solved, settings.instruction)
    parts = [f"Question: {shot.question}\nAnswer: {shot.solution}" for shot in shots]
    return "\n\n".join([*parts, f"Question: {problem.question}\nAnswer:"])


def _notes(settings: GSM8KConfig, problems: Problems) -> list[str]:
    shots = f"{settings.shots} shots" if settings.shots else "no shots"
    return [*problems.notes, f"{settings.form.capitalize()} form, {shots}."]
