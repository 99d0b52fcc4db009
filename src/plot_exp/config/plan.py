"""The section `plan`: what `task=plan` takes for granted where nothing can be measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plot_exp.config.base import Section

GPU = Literal["A100-40", "A100", "H100", "H200", "L40S", "RTX4090"]


class PlanConfig(Section):
    """A plan's assumptions.

    Attributes:
        memory_gib: of each device; null measures it, or takes the named GPU's.
        gpu: whose memory and peak speed are taken where there is no GPU; null for an H100 where
            `trainer.accelerator=gpu` asks for one.
        tflops: TFLOP/s that each device really gets done; null assumes `utilisation` of the
            GPU's dense bf16 peak, or measures a CPU.
        utilisation: the share of the peak that training usually gets.
        prompt_tokens, response_tokens: of every example; null for the dataset's own where it can
            be read here, else for examples that fill `dataset.max_length`, half of it response.
        examples: of the training set, where it cannot be read.
        sample: examples that are tokenised for their lengths at most.
        advise: say what to change where a run does not fit.
    """

    memory_gib: float | None = Field(None, gt=0)
    gpu: GPU | None = None
    tflops: float | None = Field(None, gt=0)
    utilisation: float = Field(0.4, gt=0, le=1)
    prompt_tokens: int | None = Field(None, ge=1)
    response_tokens: int | None = Field(None, ge=1)
    examples: int = Field(10_000, ge=1)
    sample: int = Field(5_000, ge=1)
    advise: bool = True
