"""The settings of evaluation: what is measured, with how many prompts, and by which judge."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from plot_exp.config.attacks import ASRConfig
from plot_exp.config.base import LARGEST, Section
from plot_exp.config.benchmarks import AlpacaEvalConfig, MTBenchConfig, RewardConfig
from plot_exp.config.endpoint import EndpointConfig

__all__ = [
    "BENCHMARKS",
    "EndpointConfig",
    "EvalConfig",
    "FluencyConfig",
    "GSM8KConfig",
    "LMEvalConfig",
    "MathConfig",
]


class GradedConfig(Section):
    """What problems with a gold final answer have in common.

    Attributes:
        path: a file or folder in the published layout; null looks under `PLOT_EXP_DATA`, then asks
            the hub for `hub_name`.
        limit: at most so many problems, evenly over their groups, drawn by `seed`; null for all.
        shots: solved problems of the training split before each one, as earlier turns.
        instruction: stands behind each problem; the answer's form is asked for here.
    """

    path: str | None = None
    hub_name: str | None = None
    limit: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, le=LARGEST)
    shots: int = Field(0, ge=0, le=64)
    instruction: str = ""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(1024, ge=1)


class GSM8KConfig(GradedConfig):
    """GSM8K (arXiv 2110.14168).

    Attributes:
        form: `chat` uses the model's chat template; `text` is the plain `Question: ... Answer:`
            layout that base models are measured with.
    """

    form: Literal["chat", "text"] = "chat"
    instruction: str = (
        "Solve the problem step by step. End with a last line of the form `#### N`, where N is "
        "the final number."
    )
    max_new_tokens: int = Field(512, ge=1)


class MathConfig(GradedConfig):
    r"""MATH (arXiv 2103.03874) or its 500-problem selection.

    Attributes:
        subset: one subject of the published data, or null for all.
        seconds: that comparing one answer with its gold one may take; then it counts as wrong.
    """

    subset: str | None = None
    instruction: str = r"Solve the problem step by step. Put the final answer in \boxed{}."
    max_new_tokens: int = Field(2048, ge=1)
    seconds: float = Field(5.0, gt=0)


class FluencyConfig(Section):
    """Perplexity of the model's own responses under the reference, variety and length.

    Attributes:
        limit: held-out prompts of `dataset` that are answered; null for all.
    """

    limit: int | None = Field(200, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)


class LMEvalConfig(Section):
    """Tasks of EleutherAI's lm-eval, in this process.

    Attributes:
        tasks: names, each with its number of shots behind an @ (`arc_challenge@25`) or with the
            task's own.
        limit: documents a task; null for all.
        include_path: a folder with task files of one's own.
        chat_template: put the model's chat template around the questions.
    """

    tasks: list[str] = Field(default_factory=list)
    limit: int | None = Field(None, ge=1)
    include_path: str | None = None
    chat_template: bool = False

    @field_validator("tasks")
    @classmethod
    def _shots_are_numbers(cls, value: list[str]) -> list[str]:
        for text in value:
            name, at, shots = text.rpartition("@")
            if at and not (name and shots.isdecimal()):
                raise ValueError(f"{text!r} must be a task's name, or NAME@SHOTS")
        return value

    def shots(self) -> dict[str, int | None]:
        """Each task's number of shots; None for its own."""
        found: dict[str, int | None] = {}
        for text in self.tasks:
            name, at, shots = text.rpartition("@")
            found[name if at else text] = int(shots) if at else None
        return found


class EvalConfig(Section):
    """What is measured before and after training, and by `task=evaluate`.

    A benchmark is measured where its section is there. To add one: its section here, its name in
    `BENCHMARKS`, `conf/eval/NAME.yaml`, and `evals/NAME.py` (see `evals/base.py`).

    Attributes:
        preferences: accuracies and margins on validation examples.
        generations: validation prompts that are answered by both models; 0 for none.
        max_new_tokens: of the answers to validation prompts; benchmarks have their own.
        batch_size: prompts that are answered together.
        samples: how many of the answers the report shows side by side.
        base: measure the benchmarks on a run's start as well.
        endpoint: where the measured model is served; null measures weights in this process.
        judge: whom benchmarks ask that need a judge and name none of their own.
    """

    name: Literal[
        "none",
        "quick",
        "asr",
        "gsm8k",
        "math",
        "reward",
        "mt_bench",
        "alpaca_eval",
        "lm_eval",
        "fluency",
        "values",
        "reasoning",
        "general",
        "paper",
    ] = "quick"
    preferences: bool = True
    generations: int = Field(140, ge=0)
    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(32, ge=1)
    samples: int = Field(14, ge=0)
    base: bool = True
    endpoint: EndpointConfig = EndpointConfig()
    judge: EndpointConfig = EndpointConfig()
    gsm8k: GSM8KConfig | None = None
    math: MathConfig | None = None
    reward: RewardConfig | None = None
    mt_bench: MTBenchConfig | None = None
    alpaca_eval: AlpacaEvalConfig | None = None
    lm_eval: LMEvalConfig | None = None
    fluency: FluencyConfig | None = None
    asr: ASRConfig | None = None


# In the order in which they are run: what is cheap first.
BENCHMARKS = (
    "fluency",
    "gsm8k",
    "math",
    "reward",
    "mt_bench",
    "alpaca_eval",
    "lm_eval",
    "asr",
)
