"""The settings of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from plot_exp.config.base import LARGEST, Section

WITHOUT_REJECTED = ("gsm8k", "math")

DatasetName = Literal["demo", "hh_rlhf", "gsm8k", "math", "jsonl", "mix"]


class SampledRejections(Section):
    """How `rejected=sampled` draws responses from a model before they are graded.

    Attributes:
        model: a model id or directory; null draws from the policy's start.
        samples: responses drawn for each prompt.
    """

    model: str | None = None
    samples: int = Field(4, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)
    seed: int = Field(0, ge=0, le=LARGEST)


class DatasetConfig(Section):
    """One dataset, from a hub name or from local files.

    Attributes:
        name: which reader reads it.
        path: a local file or directory in the published layout; null looks under
            `PLOT_EXP_DATA`, then asks the hub for `hub_name`.
        subset: a part of the published data (`harmless-base`), or null for all.
        limit: at most so many training examples, drawn by `split_seed`; null for all.
        preference_limit: of these, at most so many are trained on, drawn alike; the base of
            `model=tiny` is made from all of them. A mix has one of its own, its sources none.
        validation_fraction: the share cut off for validation where only one split is at hand.
        max_length: tokens of prompt and response together, the end token included.
        remove_overlap: leave out training prompts that also stand in validation, or that the
            benchmarks of `eval` ask.
        rejected: where rejected responses come from for data that have none.
        size: examples to generate (`demo` only).
        sources: the datasets of a `mix`, each with its own section and a weight.
        weight: the share of a dataset within a `mix`.
    """

    name: DatasetName = "demo"
    path: str | None = None
    hub_name: str | None = None
    subset: str | None = None
    limit: int | None = Field(None, ge=1)
    preference_limit: int | None = Field(None, ge=1)
    validation_limit: int | None = Field(None, ge=1)
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    split_seed: int = Field(0, ge=0)
    max_length: int = Field(512, ge=8)
    remove_overlap: bool = False
    rejected: Literal["given", "none", "corrupt", "sampled"] = "given"
    sampled: SampledRejections = SampledRejections()
    size: int = Field(3000, ge=70)
    weight: float = Field(1.0, gt=0)
    sources: dict[str, DatasetConfig] | None = None


def sources_of(dataset: DatasetConfig) -> Iterator[tuple[str, DatasetConfig]]:
    """The key and section of every dataset that is read."""
    if dataset.name == "mix":
        for name, source in (dataset.sources or {}).items():
            yield f"dataset.sources.{name}", source
    else:
        yield "dataset", dataset


def has_no_rejected(dataset: DatasetConfig) -> bool:
    """Whether training examples come without anything to reject."""
    return dataset.rejected == "none" or (
        dataset.rejected == "given" and dataset.name in WITHOUT_REJECTED
    )
