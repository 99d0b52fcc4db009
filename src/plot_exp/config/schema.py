"""The whole configuration, as one tree of closed sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, field_validator

from plot_exp.config.base import LARGEST, Section
from plot_exp.config.dataset import DatasetConfig
from plot_exp.config.evals import EvalConfig
from plot_exp.config.losses import load_extension, term_sections
from plot_exp.config.problems import validated
from plot_exp.errors import UserError


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
        export: `merged` into the weights, or the `adapter` alone.
    """

    rank: int | None = Field(None, ge=1)
    alpha: float | None = Field(None, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False
    export: Literal["merged", "adapter"] = "merged"


class ModelConfig(Section):
    """The policy's start.

    Attributes:
        name: `tiny`, a hub id, or a directory that `save_pretrained` wrote, an adapter's included.
        weights: `pretrained`, or `random` for the shape alone.
        chat_template: a file with a Jinja template, where the model has none or the wrong one.
    """

    name: str = "tiny"
    weights: Literal["pretrained", "random"] = "pretrained"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    revision: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None
    lora: LoRAConfig = LoRAConfig()
    tiny: TinyConfig = TinyConfig()

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_given(cls, value: object) -> object:
        if not value:
            raise ValueError("needs a hub id or a directory: model.name=ID_OR_DIR")
        return value


class KeepConfig(Section):
    """Which checkpoints stay beside the last one.

    Attributes:
        best: a metric of validation, such as `val/reward_accuracy`; null keeps none.
        mode: whether the best is the largest or the smallest.
    """

    best: str | None = None
    mode: Literal["max", "min"] = "max"


class TrainerConfig(Section):
    """How training runs.

    Attributes:
        max_steps: optimizer steps; null takes `epochs`.
        batch_size: examples an optimizer step.
        microbatch_size: examples a forward pass; null for the whole batch.
        layout: how examples become rows of tokens, which changes no number: `padded` repeats the
            prompt for each response, `shared` has it once, `packed` puts several examples into a
            row; `auto` packs where the model allows, else pads.
        row_capacity: positions of a packed row, where a model needs rows; null for the longest
            example of each microbatch.
        group_by_length: batches hold examples of similar lengths, in random order; worth it where
            rows are padded. Microbatches are always cut by length.
        coupling: what batch-coupled terms see under accumulation.
        on_nonfinite: end the run at a loss or gradient that is not finite, or leave the step out.
        max_skipped_steps: so many steps left out in a row end the run after all.
        dropout: the probability that every dropout of the model gets.
        activation_checkpointing: keep only the layers' inputs and run each layer again in the
            backward pass; the same gradients in less memory.
        head_chunk: response positions whose logits are held at once; `auto` keeps them all where
            the free memory allows, else goes in chunks and computes them again.
        validate_every: steps between validations; null for the end only.
        checkpoint_every: steps between checkpoints; the last step has one too.
        keep: which checkpoints stay.
        export_checkpoint: which one is measured and exported at the end.
        requeue: under SLURM, put the job back into the queue when a signal ends it.
        heartbeat_seconds: between two lines of progress, where there is no terminal.
        log_term_gradients: measure each term's own gradient norm at log steps.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "cpu"
    precision: Literal["32-true", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    max_steps: int | None = Field(None, ge=1, le=LARGEST)
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(16, ge=1)
    microbatch_size: int | None = Field(None, ge=1)
    layout: Literal["auto", "padded", "shared", "packed"] = "auto"
    row_capacity: int | None = Field(None, ge=1)
    group_by_length: bool = False
    coupling: Literal["exact", "carried", "microbatch"] = "exact"
    gradient_clip: float = Field(1.0, gt=0)
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped_steps: int = Field(100, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    activation_checkpointing: bool = False
    head_chunk: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    log_every: int = Field(10, ge=1)
    validate_every: int | None = Field(None, ge=1)
    validation_batch_size: int = Field(32, ge=1)
    checkpoint_every: int = Field(50, ge=1)
    keep: KeepConfig = KeepConfig()
    export_checkpoint: Literal["last", "best"] = "last"
    requeue: bool = True
    heartbeat_seconds: float = Field(60.0, gt=0)
    log_term_gradients: bool = True
    progress: bool = True


Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    lr: float = Field(1e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_fraction: float = Field(0.1, ge=0, le=1)


class LoggerConfig(Section):
    """Where metrics go beside the run directory."""

    name: Literal["wandb", "csv", "none"] = "wandb"
    project: str = "plot_exp"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    tags: list[str] = Field(default_factory=list)


class Config(Section):
    """One run.

    Attributes:
        name: the run's name: the folder under `outputs/`, the W&B name.
        extensions: Python files that register loss terms of one's own.
        reference: `policy` for the policy's start, or a model id or directory of its own.
        reference_form: a copy of its own, the policy with its adapter off, or its scores computed
            once and kept in `cache_dir`; `auto` chooses and says what.
        resume: a run directory to go on with.
        run: a finished run directory, for `task=evaluate` and `task=export`.
        runs: a directory of finished runs, for `task=report`.
        objective: the metric that a searching sweeper (`hydra/sweeper=optuna`) looks at.
        cache_dir: base models, tokenised data, distributions and sampled rejections.
    """

    name: str = "default"
    task: Literal["train", "evaluate", "report", "export"] = "train"
    seed: int = Field(0, ge=0, le=LARGEST)
    model: ModelConfig = ModelConfig()
    dataset: DatasetConfig = DatasetConfig()
    extensions: list[str] = Field(default_factory=list)
    loss: dict[str, SerializeAsAny[Section]]
    trainer: TrainerConfig = TrainerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    eval: EvalConfig = EvalConfig()
    logger: LoggerConfig = LoggerConfig()
    reference: str = "policy"
    reference_form: Literal["auto", "copy", "adapter_off", "cached"] = "auto"
    resume: str | None = None
    run: str | None = None
    runs: str | None = None
    objective: str = "val/reward_accuracy"
    output_dir: str = "outputs"
    cache_dir: str

    @field_validator("extensions", mode="before")
    @classmethod
    def _extensions_are_loaded(cls, value: object) -> object:
        """Before `loss`, which may name their terms; by their whole paths, for a later resume."""
        if isinstance(value, str):
            value = [value]
        return [load_extension(str(path)) for path in value] if isinstance(value, list) else value

    @field_validator("loss", mode="before")
    @classmethod
    def _terms_have_their_sections(cls, value: object) -> object:
        return term_sections(value)

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data, in the shape of `config.yaml`."""
        return self.model_dump(mode="json")


def load(path: str | Path) -> Config:
    """Read a `config.yaml` that a run left behind.

    Raises:
        UserError: there is no such file, it is no YAML, or it does not fit the schema.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a configuration: {error}") from error
    return validated(Config, content, source=str(path))
