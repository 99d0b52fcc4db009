"""What each setting allows alone but not beside another one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.config.evals import BENCHMARKS
from plot_exp.config.limits import apply_limits
from plot_exp.config.losses import TERMS, PLOTConfig
from plot_exp.config.model import ModelConfig
from plot_exp.config.problems import shown
from plot_exp.config.safety import secrets_and_controls, unsafe_name
from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.files import reason

# Forms of transport whose cost is a distance along lines.
LINES = ("line", "path", "sliced")
WITHOUT_REJECTED = ("gsm8k", "math")
FOLDERS = {"resume": "a run directory", "run": "a run directory", "runs": "a directory of runs"}


def check(config: Config) -> None:
    """Refuse a combination that makes no sense, and paths that are not there.

    Raises:
        UserError: naming the keys, the reason and what to do.
    """
    apply_limits(config.limits)
    try:
        for rule in RULES:
            for problem in rule(config):
                raise UserError(problem)
        if config.task == "train":
            _check_data_paths(config)
            _check_models(config)
    except OSError as error:  # a name that is too long for the system, a loop of links
        raise UserError(
            f"a path in the settings cannot be used ({reason(error)}): {shown(error.filename)}"
        ) from error


def _microbatches_fill_the_batch(config: Config) -> Iterator[str]:
    trainer = config.trainer
    micro, batch = trainer.microbatch_size, trainer.batch_size
    if micro is None:
        return
    if micro > batch:
        yield (
            f"trainer.microbatch_size={micro}: larger than trainer.batch_size={batch}, "
            "which is what one optimizer step sees"
        )
    elif batch % micro:
        yield (
            f"trainer.microbatch_size={micro}: does not divide trainer.batch_size={batch}; "
            "choose a divisor"
        )


def _several_devices_have_a_strategy(config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.strategy != "single":
        return
    for key in ("devices", "nodes"):
        value = getattr(trainer, key)
        if value not in (1, "auto"):
            yield (
                f"trainer.{key}={value} with trainer.strategy=single: one process has one device; "
                "write trainer=ddp (the policy whole on each) or trainer=fsdp (in parts)"
            )


def _terms_find_what_they_need(config: Config) -> Iterator[str]:
    if config.task != "train":
        return
    for key, dataset in _sources(config.dataset):
        for term in config.loss:
            if not _has_no_rejected(dataset):
                continue
            if TERMS[term].needs_pairs or TERMS[term].needs_rejected:
                none = dataset.name in WITHOUT_REJECTED
                yield (
                    f"loss={'+'.join(config.loss)} with {key}.rejected={dataset.rejected}: "
                    f"{term!r} compares chosen with rejected responses, and "
                    + (f"{dataset.name} has none" if none else "this leaves them out")
                    + f"; write {key}.rejected={'corrupt (or sampled)' if none else 'given'}, "
                    "or loss=sft"
                )


def _gradient_share_has_two_sides(config: Config) -> Iterator[str]:
    others = [term for term in config.loss if not TERMS[term].auxiliary]
    for term, section in config.loss.items():
        share = getattr(section, "gradient_share", None)
        if share is None:
            continue
        key = f"loss.{term}.gradient_share={share:g}"
        if not others or others[0] == term:
            yield (
                f"{key}: a share of another term's gradient, and loss={'+'.join(config.loss)} has "
                "none before it that is trained for itself; "
                f"write loss=dpo+{term}, say, or leave it out"
            )
        elif getattr(section, "weight", None) == 0:
            factor = "alpha" if term == "plot" else "weight"
            yield (
                f"{key} with loss.{term}.{factor}=0: the first step is taken with that factor, "
                "and a gradient of zero has no share; give it a positive one"
            )


def _a_cost_is_read_by_the_transport(config: Config) -> Iterator[str]:
    section = config.loss.get("plot")
    if not isinstance(section, PLOTConfig):
        return
    if section.cost_distance != "straight" and section.transport in ("sinkhorn", "exact"):
        yield (
            f"loss.plot.cost_distance={section.cost_distance} with loss.plot.transport="
            f"{section.transport}: light tokens are summed up at one point there, and a graph "
            "has none between tokens; write loss.plot.transport=dual"
        )
    if section.transport not in LINES:
        return
    for key, field in PLOTConfig.model_fields.items():
        value = getattr(section, key)
        if key.startswith("cost_") and value != field.get_default(call_default_factory=True):
            yield (
                f"loss.plot.{key}={value} with loss.plot.transport={section.transport}: this form "
                "has a line for a cost and does not read it; write loss.plot.transport=dual, or "
                "leave it out"
            )


def _carried_potentials_have_one_batch(config: Config) -> Iterator[str]:
    section = config.loss.get("plot")
    if not isinstance(section, PLOTConfig) or section.transport != "dual":
        return
    if section.distribution != "batch":
        yield (
            f"loss.plot.transport=dual with loss.plot.distribution={section.distribution}: one set "
            "of potentials follows one distribution; write loss.plot.distribution=batch, or "
            "another transport"
        )
    if (coupling := config.trainer.coupling) != "exact":
        yield (
            f"loss.plot.transport=dual with trainer.coupling={coupling}: the potentials follow the "
            "whole batch from step to step, not its parts; write trainer.coupling=exact"
        )


def _a_cached_reference_has_what_terms_ask(config: Config) -> Iterator[str]:
    if config.reference_form != "cached":
        return
    for term in config.loss:
        if asked := TERMS[term].asks_of_reference:
            yield (
                f"reference_form=cached with loss={'+'.join(config.loss)}: {term!r} reads the "
                f"reference's {asked}, which no file keeps; leave reference_form out"
            )


def _kto_has_a_second_prompt(config: Config) -> Iterator[str]:
    if "kto" in config.loss and config.trainer.batch_size == 1:
        yield (
            "loss=kto with trainer.batch_size=1: its reference point is estimated on prompts with "
            "responses to other prompts of the batch; write trainer.batch_size=2 or more"
        )


def _rejected_fits_the_data(config: Config) -> Iterator[str]:
    for key, dataset in _sources(config.dataset):
        if dataset.rejected in ("corrupt", "sampled") and dataset.name not in WITHOUT_REJECTED:
            yield (
                f"{key}.rejected={dataset.rejected}: made for data whose final answers can be "
                f"graded ({', '.join(WITHOUT_REJECTED)}), not for {dataset.name}; "
                f"write {key}.rejected=given"
            )


def _mix_has_sources(config: Config) -> Iterator[str]:
    dataset = config.dataset
    if dataset.name == "mix" and not dataset.sources:
        yield "dataset=mix: dataset.sources is empty; give each dataset its section there"
    if dataset.name != "mix" and dataset.sources:
        yield f"dataset.sources: only dataset=mix has sources, this is dataset={dataset.name}"
    for name, source in (dataset.sources or {}).items():
        if source.name == "mix":
            yield f"dataset.sources.{name}: a mix cannot stand within a mix"


def _own_data_has_a_path(config: Config) -> Iterator[str]:
    if config.task != "train":
        return
    for key, dataset in _sources(config.dataset):
        if dataset.name == "jsonl" and dataset.path is None and dataset.hub_name is None:
            yield f"dataset=jsonl needs a file or directory: {key}.path=FILE"


def _task_has_its_folder(config: Config) -> Iterator[str]:
    if config.task == "export" and config.run is None:
        yield "task=export needs a finished run: run=RUN_DIR"
    benchmarks = any(getattr(config.eval, name) is not None for name in BENCHMARKS)
    if config.task == "evaluate" and config.run is None and not benchmarks:
        yield (
            f"task=evaluate with eval={config.eval.name} needs a finished run: run=RUN_DIR; a "
            "model by itself is measured by benchmarks: task=evaluate model=hf "
            "model.name=ID_OR_DIR eval=reasoning"
        )
    if config.task == "report" and config.runs is None:
        yield "task=report needs a directory of finished runs: runs=DIR"
    for key, meaning in FOLDERS.items():
        value = getattr(config, key)
        if value is not None and not Path(value).is_dir():
            yield f"{key}={value}: there is no such directory; {key} takes {meaning}"


def _a_served_model_stands_alone(config: Config) -> Iterator[str]:
    url = config.eval.endpoint.url
    if url is not None and (config.task != "evaluate" or config.run is not None):
        other = f"run={config.run}" if config.run is not None else f"task={config.task}"
        yield (
            f"eval.endpoint.url={url} with {other}: a served model is measured by itself, with "
            "task=evaluate and without run; a judge's address is eval.judge.url"
        )


def _endpoints_are_named_in_full(config: Config) -> Iterator[str]:
    evaluation = config.eval
    sections = {"eval.endpoint": evaluation.endpoint, "eval.judge": evaluation.judge}
    for name in BENCHMARKS:
        if own := getattr(getattr(evaluation, name), "judge", None):
            sections[f"eval.{name}.judge"] = getattr(own, "endpoint", own)
    for key, section in sections.items():
        if (section.url is None) != (section.model is None):
            there, absent = ("url", "model") if section.url else ("model", "url")
            yield (
                f"{key}.{there}={getattr(section, there)} needs {key}.{absent} beside it: the "
                "address of a server, and the name of a model there"
            )


def _published_annotations_stand_alone(config: Config) -> Iterator[str]:
    section = config.eval.alpaca_eval
    if section is None or section.annotations is None:
        return
    key = f"eval.alpaca_eval.annotations={section.annotations}"
    others = [
        name
        for name in BENCHMARKS
        if name != "alpaca_eval" and getattr(config.eval, name) is not None
    ]
    beside = (
        f"run={config.run}"
        if config.run is not None
        else f"task={config.task}"
        if config.task != "evaluate"
        else f"eval={config.eval.name}"
        if others
        else None
    )
    if beside is not None:
        yield (
            f"{key} with {beside}: annotations are of the model that they name, not of another; "
            "score them by themselves, with task=evaluate eval=alpaca_eval and without run"
        )


def _heads_divide_the_hidden_size(config: Config) -> Iterator[str]:
    tiny = config.model.tiny
    if tiny.hidden_size % (2 * tiny.heads):
        yield (
            f"model.tiny.hidden_size={tiny.hidden_size}: must be a multiple of twice "
            f"model.tiny.heads={tiny.heads}, since rotary positions turn pairs of dimensions"
        )


def _weights_can_be_kept_small(config: Config) -> Iterator[str]:
    lora, sharded = config.model.lora, config.trainer.strategy == "fsdp"
    if lora.quantised is not None and lora.rank is None:
        yield (
            f"model.lora.quantised={lora.quantised}: quantised weights are not trained; write "
            "model.lora.rank=16, say, to train an adapter beside them, or leave it out"
        )
    for key, asked in {
        f"model.lora.quantised={lora.quantised}": lora.quantised is not None,
        "optimizer.eight_bit=true": config.optimizer.eight_bit,
        "trainer.compile=true": config.trainer.compile,
    }.items():
        if asked and sharded:
            yield f"{key} with trainer=fsdp: this has not been made to work; write trainer=ddp"
    for key, value in {
        "trainer.dropout": config.trainer.dropout,
        "model.lora.dropout": lora.dropout,
    }.items():
        if config.trainer.compile and value:
            yield (
                f"trainer.compile=true with {key}={value}: masks that belong to tokens are drawn "
                "outside of what is compiled; write one or the other"
            )
    if config.model.weights == "random" and lora.export == "adapter" and lora.rank is not None:
        yield (
            "model.lora.export=adapter with model.weights=random: the weights beneath are written "
            "nowhere; write model.lora.export=merged"
        )


def _an_average_has_digits(config: Config) -> Iterator[str]:
    model, precision = config.model, config.trainer.precision
    if config.optimizer.ema is None or model.lora.rank is not None:
        return
    if precision == "bf16-true" or model.dtype in ("bfloat16", "float16"):
        key = "trainer.precision" if precision == "bf16-true" else "model.dtype"
        value = precision if precision == "bf16-true" else model.dtype
        yield (
            f"optimizer.ema={config.optimizer.ema} with {key}={value}: the average's small changes "
            "round away in half precision; write model.dtype=float32 and "
            "trainer.precision=bf16-mixed"
        )


def _attention_heads_fit(config: Config) -> Iterator[str]:
    shape = config.model.shape
    hidden, heads, groups = (
        shape.hidden_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
    )
    if hidden and heads and hidden % (2 * heads):
        yield (
            f"model.shape.hidden_size={hidden}: must be a multiple of twice "
            f"model.shape.num_attention_heads={heads}, since rotary positions turn pairs of "
            "dimensions"
        )
    if heads and groups and heads % groups:
        yield (
            f"model.shape.num_key_value_heads={groups}: must divide "
            f"model.shape.num_attention_heads={heads}"
        )


def _best_is_measured(config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.keep.best is None:
        if trainer.export_checkpoint == "best":
            yield (
                "trainer.export_checkpoint=best: no best checkpoint is kept; name its metric: "
                "trainer.keep.best=val/reward_accuracy"
            )
    elif trainer.validate_every is None:
        yield (
            f"trainer.keep.best={trainer.keep.best}: measured by the validations during training; "
            "say how often: trainer.validate_every=50"
        )


def _name_is_a_folder_name(config: Config) -> Iterator[str]:
    if (why := unsafe_name(config.name)) is not None:
        yield (
            f"name={shown(config.name)}: must be a folder name ({why}); output_dir says where it "
            "stands"
        )


def _settings_hold_no_secret(config: Config) -> Iterator[str]:
    yield from secrets_and_controls(config.plain())


def _an_export_is_not_the_run(config: Config) -> Iterator[str]:
    path, run = config.export.path, config.run
    if path is not None and run is not None and Path(path).resolve() == Path(run).resolve():
        yield f"export.path={path}: this is the run itself; name a folder in it or elsewhere"


def _an_adapter_is_there_to_be_off(config: Config) -> Iterator[str]:
    if config.reference_form != "adapter_off":
        return
    if config.reference != "policy":
        yield (
            f"reference_form=adapter_off with reference={config.reference}: that model has weights "
            "of its own; write reference_form=auto"
        )
    elif config.model.lora.rank is None:
        yield (
            "reference_form=adapter_off: every weight is trained, so there is no adapter to switch "
            "off; write model.lora.rank=16, say, or reference_form=auto"
        )


RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    _settings_hold_no_secret,
    _name_is_a_folder_name,
    _an_export_is_not_the_run,
    _task_has_its_folder,
    _a_served_model_stands_alone,
    _endpoints_are_named_in_full,
    _published_annotations_stand_alone,
    _microbatches_fill_the_batch,
    _several_devices_have_a_strategy,
    _mix_has_sources,
    _own_data_has_a_path,
    _rejected_fits_the_data,
    _terms_find_what_they_need,
    _gradient_share_has_two_sides,
    _a_cost_is_read_by_the_transport,
    _carried_potentials_have_one_batch,
    _a_cached_reference_has_what_terms_ask,
    _an_adapter_is_there_to_be_off,
    _kto_has_a_second_prompt,
    _heads_divide_the_hidden_size,
    _best_is_measured,
    _attention_heads_fit,
    _weights_can_be_kept_small,
    _an_average_has_digits,
)


def _sources(dataset: DatasetConfig) -> Iterator[tuple[str, DatasetConfig]]:
    """The key and section of every dataset that is read."""
    if dataset.name == "mix":
        for name, source in (dataset.sources or {}).items():
            yield f"dataset.sources.{name}", source
    else:
        yield "dataset", dataset


def _has_no_rejected(dataset: DatasetConfig) -> bool:
    return dataset.rejected == "none" or (
        dataset.rejected == "given" and dataset.name in WITHOUT_REJECTED
    )


def _check_models(config: Config) -> None:
    load = importlib.import_module("plot_exp.models.load")
    load.check(config.model)
    if config.reference != "policy":
        load.check(ModelConfig(name=config.reference), "reference")


def _check_data_paths(config: Config) -> None:
    for key, dataset in _sources(config.dataset):
        if dataset.path is not None and not Path(dataset.path).expanduser().exists():
            raise UserError(f"{key}.path={dataset.path}: there is no such file or directory")
    importlib.import_module("plot_exp.data.sources").check(config.dataset)
