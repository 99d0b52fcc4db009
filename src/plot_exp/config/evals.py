"""The settings of evaluation: what is measured, with how many prompts, and by which judge."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plot_exp.config.attacks import ASRConfig
from plot_exp.config.base import Section
from plot_exp.config.endpoint import EndpointConfig

__all__ = ["EndpointConfig", "EvalConfig"]


class EvalConfig(Section):
    """What is measured before and after training.

    Attributes:
        preferences: accuracies and margins on validation examples.
        generations: validation prompts that are answered by both models; 0 for none.
        samples: how many of the answers the report shows side by side.
        asr: red-team attacks and the judge of their success.
    """

    name: Literal["none", "quick"] = "quick"
    preferences: bool = True
    generations: int = Field(140, ge=0)
    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(32, ge=1)
    samples: int = Field(14, ge=0)
    asr: ASRConfig = ASRConfig()
