"""What each setting allows alone but not beside another one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

from plot_exp.config import loss_rules, model_rules
from plot_exp.config.dataset import WITHOUT_REJECTED, sources_of
from plot_exp.config.evals import BENCHMARKS
from plot_exp.config.limits import apply_limits
from plot_exp.config.model import ModelConfig
from plot_exp.config.problems import shown
from plot_exp.config.safety import secrets_and_controls, unsafe_name
from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.files import reason

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


def _rejected_fits_the_data(config: Config) -> Iterator[str]:
    for key, dataset in sources_of(config.dataset):
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
        if source.preference_limit is not None:
            yield (
                f"dataset.sources.{name}.preference_limit: it belongs to the whole mix; write "
                f"dataset.preference_limit, or dataset.sources.{name}.limit"
            )


def _own_data_has_a_path(config: Config) -> Iterator[str]:
    if config.task != "train":
        return
    for key, dataset in sources_of(config.dataset):
        if dataset.name == "jsonl" and dataset.path is None and dataset.hub_name is None:
            yield f"dataset=jsonl needs a file or directory: {key}.path=FILE"


def _task_has_its_folder(config: Config) -> Iterator[str]:
    if config.task == "export" and config.run is None:
        yield "task=export needs a run: run=RUN_DIR"
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
    if config.run is not None and not (Path(config.run) / "config.yaml").is_file():
        below = sorted(Path(config.run).glob("*/config.yaml"))
        hint = f"; did you mean run={below[-1].parent}?" if below else ""
        yield f"run={config.run}: no run directory, since it holds no config.yaml{hint}"


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
    _best_is_measured,
    *loss_rules.RULES,
    *model_rules.RULES,
)


def _check_models(config: Config) -> None:
    load = importlib.import_module("plot_exp.models.load")
    load.check(config.model)
    if config.reference != "policy":
        load.check(ModelConfig(name=config.reference), "reference")


def _check_data_paths(config: Config) -> None:
    for key, dataset in sources_of(config.dataset):
        if dataset.path is not None and not Path(dataset.path).expanduser().exists():
            raise UserError(f"{key}.path={dataset.path}: there is no such file or directory")
    importlib.import_module("plot_exp.data.sources").check(config.dataset)
