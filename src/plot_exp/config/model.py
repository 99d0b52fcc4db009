"""The section `model`: which weights a run starts from, and what of them is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from plot_exp.config.base import LARGEST, Section


class TinyConfig(Section):
    """The shape of the small Qwen2-architecture model, and how its base is trained."""

    vocab_size: int = Field(2048, ge=300)
    hidden_size: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    base_steps: int = Field(700, ge=1)
    base_epochs: float = Field(5.0, gt=0)
    base_batch_size: int = Field(32, ge=1)
    base_lr: float = Field(2e-3, gt=0)
    base_prompt_weight: float = Field(0.3, gt=0, le=1)
    base_seed: int = Field(0, ge=0, le=LARGEST)


class LoRAConfig(Section):
    """Low-rank adapters, arXiv 2106.09685, trained beside frozen weights.

    Attributes:
        rank: null trains every weight.
        alpha: the adapter's scale times its rank (its root with `rslora`); null for twice the rank.
        dropout: of the adapter's input.
        target_modules: `all-linear` (the head left out), or names of linear layers.
        rslora: scale by the root of the rank, arXiv 2312.03732.
        dora: train magnitudes apart from directions, arXiv 2402.09353.
        quantised: the frozen weights as NF4 (QLoRA, arXiv 2305.14314), through bitsandbytes.
        export: `merged` into the weights, or the `adapter` alone.
    """

    rank: int | None = Field(None, ge=1)
    alpha: float | None = Field(None, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False
    quantised: Literal["nf4"] | None = None
    export: Literal["merged", "adapter"] = "merged"


class RopeScalingConfig(Section):
    """Rotary positions stretched to a longer context, as Llama 3.1 and later have them."""

    rope_type: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low_freq_factor: float = Field(gt=0)
    high_freq_factor: float = Field(gt=0)
    original_max_position_embeddings: int = Field(ge=1)


class ShapeConfig(Section):
    """The shape of a model, in the words of its configuration file; null leaves it to that file.

    Attributes:
        architecture: with it the shape stands here in full and no such file is read.
    """

    architecture: Literal["llama", "qwen2"] | None = None
    vocab_size: int | None = Field(None, ge=300)
    hidden_size: int | None = Field(None, ge=8)
    intermediate_size: int | None = Field(None, ge=1)
    num_hidden_layers: int | None = Field(None, ge=1)
    num_attention_heads: int | None = Field(None, ge=1)
    num_key_value_heads: int | None = Field(None, ge=1)
    max_position_embeddings: int | None = Field(None, ge=1)
    rms_norm_eps: float | None = Field(None, gt=0)
    rope_theta: float | None = Field(None, gt=0)
    rope_scaling: RopeScalingConfig | None = None
    tie_word_embeddings: bool | None = None

    def given(self) -> dict[str, object]:
        """What is set, the architecture left out, in the words of transformers."""
        return self.model_dump(exclude={"architecture"}, exclude_none=True)


class ModelConfig(Section):
    """The policy's start.

    Attributes:
        name: `tiny`, a hub id, or a directory that `save_pretrained` wrote, an adapter's included.
        weights: `pretrained`, or `random` for the shape alone.
        attention: the implementation; `auto` takes SDPA where the model has it, on CUDA
            FlexAttention for packed rows.
        chat_template: `plain`, or a file with a Jinja template, where the model has none or the
            wrong one; null for the model's own, which is the plain one where it has none.
        shape: of a preset, or what replaces a model's own with `weights=random`.
    """

    name: str = "tiny"
    weights: Literal["pretrained", "random"] = "pretrained"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None
    shape: ShapeConfig = ShapeConfig()
    lora: LoRAConfig = LoRAConfig()
    tiny: TinyConfig = TinyConfig()

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_given(cls, value: object) -> object:
        if not value:
            raise ValueError("needs a hub id or a directory: model.name=ID_OR_DIR")
        return value
