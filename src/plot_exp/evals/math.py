"""MATH (Hendrycks et al. 2021, arXiv 2103.03874): the last box by math-verify."""

from __future__ import annotations

from functools import partial

from plot_exp.config.evals import MathConfig
from plot_exp.evals.base import Tools
from plot_exp.evals.graded import NOT_IN_TIME, Graded, Verdict, dialogue, sampling_of
from plot_exp.evals.problems import Problem, read_math
from plot_exp.judges.answers import compare, last_boxed


def build(settings: MathConfig, tools: Tools) -> Graded:
    """See `Benchmark`."""
    problems = read_math(settings, settings.subset)
    shots = [
        (shot.question, shot.solution) for shot in problems.shots(settings.shots, settings.seed)
    ]
    return Graded(
        "math",
        "MATH",
        problems.test,
        [dialogue(problem, shots, settings.instruction) for problem in problems.test],
        sampling_of(settings),
        partial(grade, seconds=settings.seconds),
        by_group="accuracy",
        facts={"shots": settings.shots, "seconds": settings.seconds},
        notes=[*problems.notes, f"{settings.shots or 'No'} shots."],
    )


def grade(problem: Problem, response: str, seconds: float) -> Verdict:
    """Whether the response's last box says the same as the gold answer."""
    boxed = last_boxed(response)
    if boxed is None:
        return {"accuracy": 0.0, "boxed": 0.0}, "wrong: no box"
    found = compare(boxed, problem.answer, seconds)
    words = {True: "correct", False: "wrong", None: NOT_IN_TIME}[found]
    return {"accuracy": float(found is True), "boxed": 1.0}, words
