"""What a benchmark is: a subject in, numbers, samples and notes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.generators.base import Completion, Generator
from plot_exp.generators.endpoint import EndpointGenerator
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.policy import Policy
from plot_exp.progress import Bar, silent


class CannotRunError(Exception):
    """A benchmark has no data, judge, weights or library to run with.

    The message is one sentence: what is missing and what to do. It is shown beside the other
    numbers and kept in the results; it never becomes a zero.
    """


@dataclass(frozen=True)
class Subject:
    """The model that is measured.

    Attributes:
        generator: answers prompts; in this process or at an endpoint.
        identity: what tells its weights from others', for resuming: see `model_identity`.
        reference: the policy's start, for rewards and fluency; None where there is none.
    """

    generator: Generator
    identity: str
    reference: Policy | None = None

    @property
    def name(self) -> str:
        """What is said of it: a hub id, a directory, a model at an endpoint."""
        return self.generator.name

    @property
    def local(self) -> LocalGenerator | None:
        """Its weights and tokenizer, for benchmarks that need gradients or log-probabilities."""
        return self.generator if isinstance(self.generator, LocalGenerator) else None

    def weights(self, benchmark: str) -> tuple[Policy, ChatTokeniser]:
        """Policy and tokenizer.

        Raises:
            CannotRunError: the model is behind an endpoint.
        """
        if self.local is None:
            raise CannotRunError(
                f"{benchmark} needs the model's weights, and {self.name} is behind an endpoint; "
                "name a directory or a hub id"
            )
        return self.local.policy, self.local.tokeniser


class NoModel:
    """Stands for the model where a benchmark reads answers from a file and asks nobody."""

    name = "no model"

    def __call__(self, *_: object, **__: object) -> list[list[Completion]]:
        """See `Generator`; there is nobody to answer.

        Raises:
            CannotRunError: always.
        """
        raise CannotRunError("this takes a model, and none was named")


@dataclass(frozen=True)
class Workspace:
    """Where a benchmark keeps what it has done, and how it shows its way.

    Attributes:
        folder: its own folder for this subject and these settings; what stands there was made by
            an earlier, interrupted call and counts. `Record` writes such files.
        seed: of sampling and of bootstrap intervals.
    """

    folder: Path
    bar: Bar = silent
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        metrics: flat keys below `eval/` (`gsm8k/strict`, with `/count`, `/low` and `/high`: see
            `intervals.summarise`). A number that could not be measured has no key.
        samples: one row an answer, for samples.jsonl: at least `prompt`, `response` and `verdict`;
            each benchmark adds its own. `asked` is the bare question where the prompt holds more,
            or None where it cannot be compared with training prompts.
        notes: sentences for a person: what was left out and why, which data and judge were used.
        facts: further plain data for the results file.
        complete: False where a part could not be run: a later call tries again, going on from what
            the benchmark itself has kept.
    """

    metrics: dict[str, float]
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    complete: bool = True


@dataclass(frozen=True)
class Tools:
    """What benchmarks are built with, beside their own settings.

    Attributes:
        cache_dir: the folder for what is kept between calls; each writes below one of its own.
        batch_size: prompts answered together, by models that a benchmark loads for itself.
        judge: `eval.judge`: whom to ask where the benchmark's own section names no endpoint.
        examples: reads the held-out examples of `dataset`, when called.
    """

    cache_dir: Path
    batch_size: int
    judge: EndpointConfig
    examples: Callable[[], Sequence[PreferenceExample]]

    def open_judge(self, own: EndpointConfig, benchmark: str) -> EndpointGenerator:
        """The judge's endpoint: the benchmark's own where it names one, or that of all.

        Raises:
            CannotRunError: neither names one.
        """
        settings = own if own.url is not None else self.judge
        if settings.url is None or settings.model is None:
            raise CannotRunError(
                f"{benchmark} needs a judge: name an OpenAI-compatible server and its model with "
                "eval.judge.url=URL eval.judge.model=NAME"
            )
        return EndpointGenerator(settings, self.cache_dir / "answers")


class Benchmark(Protocol):
    """One file a benchmark: `evals/NAME.py`, which has a function

        def build(settings: NAMEConfig, tools: Tools) -> Benchmark

    that raises CannotRunError where data, judge or library are missing, and UserError where a
    setting is wrong. `settings` is the section `eval.NAME`.

    Attributes:
        name: its key below `eval/` and its folder.
        settings: plain data (JSON) that decides the numbers: sampling, limits, judge, and the
            digest of the data. A finished outcome is taken again where these are the same.
    """

    name: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """See above."""
        ...

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """Measures the subject, going on where an earlier call stopped.

        Raises:
            CannotRunError: it has nothing to run with. Raised before any generation.
        """
        ...
