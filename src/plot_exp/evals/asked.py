"""What benchmarks ask, without a judge or a model: to be kept apart from training prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from plot_exp.config.benchmarks import AlpacaEvalConfig, MTBenchConfig, RewardConfig
from plot_exp.config.evals import EvalConfig, GSM8KConfig, MathConfig
from plot_exp.data.examples import Message
from plot_exp.data.overlap import prompt_hash
from plot_exp.evals import alpaca_eval, mt_bench, reward
from plot_exp.evals.base import CannotRunError
from plot_exp.evals.problems import read_gsm8k, read_math

Dialogue = Iterable[Message]


def asked_prompts(config: EvalConfig) -> dict[str, frozenset[str]]:
    """The hashes of the prompts that each chosen benchmark asks, by its name.

    Benchmarks whose data are not at hand are absent, and so are those whose prompts cannot be
    compared: lm-eval's hold shots, attacks write theirs, fluency asks validation prompts.

    Raises:
        UserError: a file that was named cannot be used.
    """
    found: dict[str, frozenset[str]] = {}
    for name, read in _READERS.items():
        section = getattr(config, name)
        if section is None:
            continue
        try:
            found[name] = frozenset(prompt_hash(list(prompt)) for prompt in read(section))
        except CannotRunError:  # the benchmark says so itself
            continue
    return found


def _gsm8k(section: GSM8KConfig) -> list[Dialogue]:
    return _bare(problem.question for problem in read_gsm8k(section).test)


def _math(section: MathConfig) -> list[Dialogue]:
    return _bare(problem.question for problem in read_math(section, section.subset).test)


def _reward(section: RewardConfig) -> list[Dialogue]:
    return [example.prompt for example in reward.read_examples(section)[0]]


def _mt_bench(section: MTBenchConfig) -> list[Dialogue]:
    return _bare(turn for question in mt_bench.read(section)[0] for turn in question.turns)


def _alpaca_eval(section: AlpacaEvalConfig) -> list[Dialogue]:
    if section.annotations is not None:
        return []
    return _bare(output.instruction for output in alpaca_eval.read(section)[1])


def _bare(texts: Iterable[str]) -> list[Dialogue]:
    return [[Message("user", text)] for text in texts]


_READERS: dict[str, Callable[[Any], list[Dialogue]]] = {
    "gsm8k": _gsm8k,
    "math": _math,
    "reward": _reward,
    "mt_bench": _mt_bench,
    "alpaca_eval": _alpaca_eval,
}
