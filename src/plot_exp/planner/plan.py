"""A run's plan: what it needs on each device, whether that fits, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plot_exp.config.schema import Config
from plot_exp.data.packing import PADDED, Layout
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.models.attention import FLEX_BLOCK, attends_by_rows
from plot_exp.models.layout_support import obstacle
from plot_exp.models.shape import origin_of
from plot_exp.planner.batches import Items, Load, load_of, positions_of
from plot_exp.planner.devices import Devices, devices_of, speed_of
from plot_exp.planner.ledger import Ledger, rehearsing
from plot_exp.planner.moments import Moment, Step, step_of
from plot_exp.planner.rehearsal import FILLING, Scene
from plot_exp.planner.shape import build_policy, model_shape, period, with_layers
from plot_exp.planner.terms import build_terms, geometry_bytes

# The workspace that cuBLAS takes from torch's allocator on Hopper; others take 8 MiB.
KERNELS = {"cuda": 32 * 2**20, "cpu": 0}
# What is not there yet while the reference's cache is filled.
LATER = ("gradients", "gradients by term", "optimizer")


@dataclass(frozen=True)
class Data:
    """The examples of a run, or of their lengths alone.

    Attributes:
        source: where the lengths come from, as a sentence.
        share: of the training examples that are in `train`.
        host_bytes: what the tokenised examples take of the host's memory.
    """

    train: Sequence[TokenisedExample]
    validation: Sequence[TokenisedExample]
    source: str
    share: float = 1.0
    host_bytes: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        weights, trained: numbers of them.
        moments: every phase's highest moment, the highest first.
        flops: of a step, on one device.
        speed: FLOP/s of one device, and where that number comes from.
        notes: what was taken for granted.
        seconds_measured: of all steps, by a run that was; None for none.
    """

    config: Config
    devices: Devices
    layout: Layout
    form: str
    load: Load
    weights: int
    trained: int
    moments: tuple[Moment, ...]
    flops: float
    speed: tuple[float, str]
    notes: tuple[str, ...] = ()
    seconds_measured: float | None = None

    @property
    def peak(self) -> Moment:
        """The highest moment of the run."""
        return self.moments[0]

    @property
    def fits(self) -> bool:
        """Whether the peak is below the memory of a device."""
        return self.peak.total <= self.devices.memory

    @property
    def seconds(self) -> float:
        """Of all steps; validation, answers and writing come on top."""
        if self.seconds_measured is not None:
            return self.seconds_measured
        return self.load.steps * self.flops / self.speed[0]


def make_plan(config: Config, data: Data, shape: Any = None) -> Plan:
    """Plans a run.

    Args:
        shape: transformers' configuration of the model; None asks `config.model`.

    Raises:
        UserError: the model's shape is not known here.
    """
    devices = devices_of(config)
    config = _settled(config, devices)
    shape = model_shape(config) if shape is None else shape
    layout, notes = planned_layout(config, shape, devices, data)
    weights, trained, vocab_size = _counted(config, shape)
    form, why = planned_form(config, vocab_size, len(data.train) / data.share)
    load = load_of(config, data.train, layout, devices.count)
    if data.share < 1:
        count = load.steps if config.trainer.max_steps else round(load.steps / data.share)
        load = replace(load, steps=max(1, count))
    steps = [step_of(scene) for scene in _scenes(config, shape, devices, layout, form, load, data)]
    highest = max(steps, key=lambda step: step.peak.total)
    geometry = geometry_bytes(config, vocab_size, shape.get_text_config().hidden_size)
    moments = [_loading(config, highest, devices), *highest.moments]
    moments = [_with_the_rest(moment, devices, data, geometry) for moment in moments]
    moments.sort(key=lambda moment: -moment.total)
    return Plan(
        config,
        devices,
        layout,
        form,
        load,
        weights,
        trained,
        tuple(moments),
        _flops_a_step(config, highest, load, layout),
        speed_of(config, devices.kind),
        (*notes, f"reference: {why}", f"lengths: {data.source}"),
    )


def _settled(config: Config, devices: Devices) -> Config:
    """With the precision that `auto` takes there."""
    if config.trainer.precision != "auto":
        return config
    precision = "bf16-mixed" if devices.kind == "cuda" else "32-true"
    return config.model_copy(
        update={"trainer": config.trainer.model_copy(update={"precision": precision})}
    )


def planned_layout(
    config: Config, shape: Any, devices: Devices, data: Data
) -> tuple[Layout, list[str]]:
    """The layout that the run will choose, without the trial on the model itself."""
    settings = config.trainer
    if settings.layout == "padded":
        return PADDED, []
    with rehearsing(Ledger()):
        model = build_policy(config, with_layers(shape, period(shape))).model
    items = [*data.train, *data.validation]
    longest = max(PADDED.length(item) for item in items)
    problem = obstacle(model, min(longest, config.dataset.max_length))
    if problem is not None:
        return PADDED, [f"padded rows, since {type(model).__name__} {problem}"]
    if settings.layout == "shared":
        return Layout("shared"), []
    if attends_by_rows(model):
        multiple = FLEX_BLOCK if devices.kind == "cuda" else 1
        return Layout("packed", joined=True, multiple=multiple), []
    return Layout("packed", settings.row_capacity), []


def planned_form(config: Config, vocab_size: int, count: float) -> tuple[str, str]:
    """The form that the reference will take, and why."""
    from plot_exp.workflows.reference import needs_live

    composite = build_terms(config, vocab_size)
    own = config.reference == "policy"
    live = "adapter_off" if own and config.model.lora.rank is not None else "copy"
    asked = config.reference_form
    if asked != "auto":
        return asked, f"{asked}, as asked for"
    if needs_live(composite):
        return live, f"{live}, since a term {needs_live(composite)}"
    trainer = config.trainer
    scored = (trainer.max_steps or 1e18) * trainer.batch_size
    if composite.needs_reference and min(scored, trainer.epochs * count) < count:
        return live, f"{live}, since the run is shorter than a pass to fill a cache"
    return "cached", "cached"


def _counted(config: Config, shape: Any) -> tuple[int, int, int]:
    """Weights of the whole model, trained ones among them, and V."""
    count, unit = shape.get_text_config().num_hidden_layers, period(shape)
    every, trained = [], []
    for layers in (unit, 2 * unit):
        with rehearsing(Ledger()):
            policy = build_policy(config, with_layers(shape, layers))
            every.append(sum(one.numel() for one in policy.parameters()))
            trained.append(sum(one.numel() for one in policy.trainable()))

    def whole(few: int, more: int) -> int:
        return more + (more - few) * (count - 2 * unit) // unit

    return whole(*every), whole(*trained), policy.vocab_size


def _scenes(
    config: Config,
    shape: Any,
    devices: Devices,
    layout: Layout,
    form: str,
    load: Load,
    data: Data,
) -> list[Scene]:
    validation = _heaviest_chunk(data.validation, config.trainer.validation_batch_size, layout)
    filling: Items = ()
    if form == "cached":
        filling = _heaviest_chunk(data.train, config.trainer.validation_batch_size, layout)
    prompts = None
    if config.eval.generations and data.validation:
        longest = max(len(item.prompt_ids) for item in data.validation)
        rows = min(config.eval.batch_size, config.eval.generations, len(data.validation))
        prompts = (rows, longest)
    return [
        Scene(
            config,
            shape,
            devices,
            layout,
            (items,) * min(2, load.microbatches),
            form,
            moments=load.steps > 1,
            validation=validation,
            filling=filling,
            prompts=prompts,
        )
        for items in load.heaviest
    ]


def _heaviest_chunk(items: Sequence[TokenisedExample], size: int, layout: Layout) -> Items:
    """The batch with the most positions of those that `evaluation_batches` cuts."""
    ordered = sorted(items, key=layout.length)
    chunks = [tuple(ordered[at : at + size]) for at in range(0, len(ordered), size)]
    return max(chunks, key=lambda chunk: positions_of(chunk, layout), default=())


def _loading(config: Config, step: Step, devices: Devices) -> Moment:
    """On a CPU the pages of the weights' files count as the process's while they are mapped."""
    parts = {"weights": max(moment.parts.get("weights", 0.0) for moment in step.moments)}
    if devices.kind == "cpu" and config.model.weights == "pretrained":
        files = Path(origin_of(config.model)).glob("*.safetensors")
        parts["the weights' files, mapped"] = sum(file.stat().st_size for file in files)
    return Moment("loading", parts)


def _with_the_rest(moment: Moment, devices: Devices, data: Data, geometry: float) -> Moment:
    """A moment with what is there throughout."""
    parts = dict(moment.parts)
    if moment.phase == FILLING:
        parts = {part: size for part, size in parts.items() if part not in LATER}
    if devices.kind == "cuda":
        parts["kernels' workspace"] = KERNELS["cuda"]
    elif data.host_bytes and moment.phase != "loading":
        parts["tokenised examples"] = data.host_bytes
    parts["loss terms"] = parts.get("loss terms", 0.0) + geometry
    return Moment(moment.phase, {part: size for part, size in parts.items() if size >= 1})


def _flops_a_step(config: Config, step: Step, load: Load, layout: Layout) -> float:
    """Of a step of average length on one device; logging and validation left out."""
    left_out = ("gradients by term", "validation", "answers", FILLING)
    rehearsed = sum(count for phase, count in step.flops.items() if not phase.startswith(left_out))
    heaviest = positions_of(load.heaviest[0], layout) * min(2, load.microbatches)
    return rehearsed * load.positions / max(1, heaviest)
