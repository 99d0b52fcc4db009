"""The whole configuration, as one tree of closed sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from plot_exp.config.base import LARGEST, Section
from plot_exp.config.dataset import DatasetConfig
from plot_exp.config.evals import EvalConfig
from plot_exp.config.export import ExportConfig
from plot_exp.config.limits import LimitsConfig
from plot_exp.config.losses import load_extension, term_sections
from plot_exp.config.model import ModelConfig
from plot_exp.config.plan import PlanConfig
from plot_exp.config.problems import validated
from plot_exp.reading import parse_yaml, read_text


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
        strategy: `single` process; `ddp`, several with the whole policy each; `fsdp`, several that
            have its weights, gradients and moments in parts (FSDP2).
        devices: processes a machine, one a device; `auto` for every GPU.
        nodes: machines, where torchrun or SLURM starts the processes.
        timeout: minutes that a process waits for the others in an exchange.
        precision: `auto` is bf16-mixed on a GPU and 32-true elsewhere.
        max_steps: optimizer steps; null takes `epochs`.
        batch_size: examples an optimizer step, over all devices.
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
        compile: run the policy's layers through torch.compile.
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
    strategy: Literal["single", "ddp", "fsdp"] = "single"
    devices: Literal["auto"] | Annotated[int, Field(ge=1)] = 1
    nodes: int = Field(1, ge=1)
    timeout: float = Field(30.0, gt=0)
    precision: Literal["auto", "32-true", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
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
    compile: bool = False
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
    """AdamW and its schedule.

    Attributes:
        eight_bit: moments in eight bits, through bitsandbytes.
        ema: decay of a moving average of the weights, which validation, evaluation and the exported
            model then have; null for none.
    """

    lr: float = Field(1e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    eight_bit: bool = False
    ema: float | None = Field(None, gt=0, lt=1)


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
        run: a finished run directory, for `task=evaluate` and `task=export`; for `task=plan` one
            whose speed is taken.
        runs: a directory of finished runs, for `task=report`.
        objective: the metric that a searching sweeper (`hydra/sweeper=optuna`) looks at.
        cache_dir: base models, tokenised data, distributions and sampled rejections.
    """

    name: str = "default"
    task: Literal["train", "evaluate", "report", "plan", "export"] = "train"
    seed: int = Field(0, ge=0, le=LARGEST)
    model: ModelConfig = ModelConfig()
    dataset: DatasetConfig = DatasetConfig()
    extensions: list[str] = Field(default_factory=list)
    loss: dict[str, SerializeAsAny[Section]]
    trainer: TrainerConfig = TrainerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    eval: EvalConfig = EvalConfig()
    export: ExportConfig = ExportConfig()
    limits: LimitsConfig = LimitsConfig()
    plan: PlanConfig = PlanConfig()
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
    content = parse_yaml(read_text(Path(path)), str(path))
    return validated(Config, content, source=str(path))
