"""The settings of what a judge grades: HH-RLHF rewards, MT-Bench and AlpacaEval 2."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from plot_exp.config.base import Section
from plot_exp.config.endpoint import EndpointConfig

PUBLISHED_REWARD_MODEL = "OpenAssistant/oasst-rm-2-pythia-6.9b-epoch-1"


class RewardConfig(Section):
    """Rewards of responses to HH-RLHF's test prompts, by a reward model in this process.

    Attributes:
        model: a hub id or directory of a sequence classifier with one output.
        form: how it reads dialogues; null takes what its tokenizer is made for.
        path: HH-RLHF's folder or file; null looks under `PLOT_EXP_DATA`, then asks the hub.
        subset: one of the published subsets, or null for all that are there.
        limit: at most so many prompts, evenly over the subsets; null for all.
        agreement: so many labelled pairs tell how often the reward model sides with people; 0 for
            none.
        max_length: tokens of a dialogue; null for what the reward model takes.
    """

    model: str = PUBLISHED_REWARD_MODEL
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    form: Literal["oasst", "chat", "pair", "hh"] | None = None
    path: str | None = None
    subset: str | None = None
    limit: int | None = Field(None, ge=1)
    agreement: int = Field(200, ge=0)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)
    max_length: int | None = Field(None, ge=8)
    batch_size: int = Field(8, ge=1)


class MTBenchConfig(Section):
    """MT-Bench by single-answer grading.

    Attributes:
        path: the folder with question.jsonl, judge_prompts.jsonl and reference_answer/gpt-4.jsonl;
            null looks under `PLOT_EXP_DATA`.
        categories: only questions of these; null for all.
        limit: at most so many questions, evenly over the categories; null for all.
        judge: the endpoint of the judge; one of its own, or that of all judges.
        judge_tokens: of a judge's explanation and grade.
    """

    path: str | None = None
    categories: list[str] | None = None
    limit: int | None = Field(None, ge=1)
    max_new_tokens: int = Field(1024, ge=1)
    judge: EndpointConfig = EndpointConfig()
    judge_tokens: int = Field(2048, ge=1)


class AlpacaEvalConfig(Section):
    """AlpacaEval 2: answers compared with a baseline's by a judge.

    Attributes:
        path: the folder with the baseline's outputs and the tables of the length control; null
            looks under `PLOT_EXP_DATA`.
        annotations: published annotations to score in place of judging the model.
        limit: at most so many instructions, evenly over the parts; null for all.
        prompt: a file with the judge's prompt, which names {instruction}, {output_1} and
            {output_2}; null takes one of this project's own, which is not the published one.
        labels: what the judge answers for the first and for the second output.
        judge_tokens: that a judge may write; log-probabilities are those of the first.
    """

    path: str | None = None
    annotations: str | None = None
    limit: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(2048, ge=1)
    judge: EndpointConfig = EndpointConfig()
    judge_tokens: int = Field(1, ge=1)
    prompt: str | None = None
    labels: tuple[str, str] = ("m", "M")

    @model_validator(mode="after")
    def _labels_differ(self) -> AlpacaEvalConfig:
        if self.labels[0] == self.labels[1] or not all(self.labels):
            raise ValueError("labels must be two different texts, one for each output")
        return self
