"""What `task=export` writes, and where it goes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from plot_exp.config.base import Section

SHARD_SIZE = re.compile(r"[1-9]\d*(\.\d+)?\s?(KB|MB|GB)")
# What the hub takes: no two dots or dashes in a row, none at an end, at most 96 characters.
REPOSITORY_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-]))*(?<![.-])"
REPOSITORY = re.compile(f"{REPOSITORY_PART}/{REPOSITORY_PART}")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class ExportConfig(Section):
    """How a run's policy leaves the run.

    Attributes:
        adapter: `merge` a trained adapter into the weights, or `keep` it as a folder of its own;
            null for what the run's `model.lora.export` says.
        checkpoint: `last`, `best`, or the step of a checkpoint; null for the run's
            `trainer.export_checkpoint`.
        dtype: of the written weights; null leaves them as they were trained.
        max_shard_size: of a safetensors file, such as 5GB.
        path: the folder to write; null for `export/` in the run's folder.
        overwrite: replace that folder where it exists.
        push_to: a repository on the hub, OWNER/NAME, made where it is missing; null for none.
        private: the repository is seen by its owner alone.
        license: the licence that the model card states, by the hub's short name; null states none.
    """

    adapter: Literal["merge", "keep"] | None = None
    checkpoint: Literal["last", "best"] | Annotated[int, Field(ge=1)] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    max_shard_size: str = "5GB"
    path: str | None = None
    overwrite: bool = False
    push_to: str | None = None
    private: bool = True
    license: str | None = None

    @field_validator("max_shard_size")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        if not SHARD_SIZE.fullmatch(value):
            raise ValueError("must be a size such as 5GB or 500MB")
        return value.replace(" ", "")

    @field_validator("push_to")
    @classmethod
    def _is_a_repository(cls, value: str | None) -> str | None:
        if value is not None and (len(value) > 96 or not REPOSITORY.fullmatch(value)):
            raise ValueError("must be a repository on the hub, OWNER/NAME")
        return value

    @field_validator("license")
    @classmethod
    def _is_a_short_name(cls, value: str | None) -> str | None:
        if value is not None and not LICENSE.fullmatch(value):
            raise ValueError("must be a short name that the hub knows, such as apache-2.0")
        return value
