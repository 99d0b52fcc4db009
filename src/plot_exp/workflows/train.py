"""Train a policy, measure it before and after, and leave a run directory that explains itself."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml

from plot_exp import environment
from plot_exp.config.losses import TERMS
from plot_exp.config.schema import Config
from plot_exp.data.loader import StepLoader
from plot_exp.errors import UserError
from plot_exp.files import prepare_cache, remove_leftovers, write_json, write_text
from plot_exp.models.load import PLAIN
from plot_exp.models.reference import PolicyStart
from plot_exp.models.summary import model_summary
from plot_exp.module import PreferenceModule
from plot_exp.progress import choose
from plot_exp.report import run as report
from plot_exp.report.flows import table_rows
from plot_exp.report.terminal import closing_table
from plot_exp.tracking import Tracker
from plot_exp.training.heartbeat import Heartbeat, StepBar
from plot_exp.training.metrics import peak_memory
from plot_exp.training.out_of_memory import memory_explained
from plot_exp.workflows.device import autocast
from plot_exp.workflows.devices import devices_of
from plot_exp.workflows.engine import (
    build_trainer,
    checkpoint_step,
    interruptible,
    last_checkpoint,
    require_accelerator,
)
from plot_exp.workflows.evaluate import after_training, before_training
from plot_exp.workflows.export import export_model
from plot_exp.workflows.measure import Measurer
from plot_exp.workflows.measured import write_measured
from plot_exp.workflows.opening import Opened, open_run
from plot_exp.workflows.prepare import Prepared


def run(config: Config, run_dir: Path) -> dict[str, float]:
    """One training run, from data to report; with `resume` it goes on where the run stopped.

    Where several processes share it, each comes this way, and the first one writes and speaks.

    Returns:
        What metrics.json holds; of the other processes nothing.
    """
    devices = devices_of(config.trainer)
    if devices.session.share("finished", (run_dir / "metrics.json").is_file()):
        return _finished(run_dir) if devices.leads else {}
    bar = choose(config.trainer.progress and devices.leads)
    torch.manual_seed(config.seed)
    with _settings_on_disk(config, run_dir) if devices.leads else nullcontext():
        require_accelerator(config.trainer)
        if devices.leads:
            before_training(config, run_dir)
        opened = open_run(config, run_dir, devices, bar)
    prepared = opened.prepared
    first = last_checkpoint(run_dir) if config.resume and devices.leads else None
    name = devices.session.share("checkpoint", None if first is None else first.name)
    checkpoint = None if name is None else run_dir / "checkpoints" / name
    policy, tracker = prepared.start.policy, None
    if devices.leads:
        _describe_run(config, run_dir, prepared)
        step = checkpoint_step(checkpoint) if checkpoint else 0
        tracker = Tracker(run_dir, config, resume_step=step if config.resume else None)
        _describe_model(tracker, run_dir, prepared)
    exit_code = 1
    try:
        facts = (prepared, opened.reference, opened.composite, opened.context)
        measurer = Measurer(config, *facts, bar)
        with autocast(config.trainer, policy.device):
            before = measurer.measure(policy)
        if isinstance(opened.start, PolicyStart):
            opened.start.moved = True
        trained = _fit(config, run_dir, opened, measurer, tracker, checkpoint)
        with autocast(config.trainer, policy.device):
            after = measurer.measure(policy)
        written_to = run_dir if devices.leads else None
        metrics = trained | write_measured(written_to, measurer, before, after)
        whole = devices.in_one_piece(policy)
        if whole is None or tracker is None:
            return {}
        export_model(
            whole,
            prepared.start.tokeniser,
            run_dir / "model",
            keep_adapter=config.model.lora.export == "adapter",
            origin=prepared.start.origin,
        )
        metrics |= after_training(config, run_dir)
        write_json(run_dir / "metrics.json", metrics)
        report.write(run_dir)
        _publish(tracker, run_dir, metrics)
        exit_code = 0
    finally:
        if tracker is not None:
            tracker.close(exit_code)
    closing_table(run_dir)
    return metrics


@contextmanager
def _settings_on_disk(config: Config, run_dir: Path) -> Iterator[None]:
    """Writes config.yaml, so that a kill at any moment from here on leaves what resume needs.

    Bad input that shows only inside takes a new run's file away again.
    """
    for folder in (run_dir, run_dir / "checkpoints"):
        remove_leftovers(folder)
    prepare_cache(Path(config.cache_dir).expanduser())
    print(f"run folder: {run_dir}", flush=True)
    path = run_dir / "config.yaml"
    new = not path.exists()
    plain = config.model_copy(update={"resume": None}).plain()
    write_text(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    try:
        yield
    except UserError:
        if new:
            path.unlink(missing_ok=True)
        raise


def _finished(run_dir: Path) -> dict[str, float]:
    """A run that is resumed after its end: the report is made again, nothing else."""
    print(f"{run_dir} is finished; its report is written again.")
    report.write(run_dir)
    closing_table(run_dir)
    metrics: dict[str, float] = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _notes(config: Config, prepared: Prepared) -> Iterator[str]:
    """What a person may not expect of the data and the model together."""
    if prepared.start.tokeniser.plain and config.model.chat_template != PLAIN:
        yield (
            f"{prepared.start.origin} has no chat template: turns are laid out plainly "
            f"(model.chat_template=FILE gives one, model.chat_template={PLAIN} means it)"
        )
    if shared := prepared.facts["overlap"]["prompts"]:
        yield (
            f"{shared} training prompts also stand in validation; "
            "dataset.remove_overlap=true leaves them out"
        )
    paired = [
        name for name in config.loss if TERMS[name].needs_pairs and not TERMS[name].likelihood
    ]
    if paired and (alone := prepared.facts["without_pairs"]):
        yield (
            f"{alone} of {len(prepared.train)} training examples hold no pair: "
            f"nothing is learned from them by {' and '.join(paired)}"
        )


def _describe_run(config: Config, run_dir: Path, prepared: Prepared) -> None:
    """Says what goes in, on the terminal and on disk."""
    for tally in prepared.tallies:
        print("\n".join(tally.lines()), flush=True)
    for note in _notes(config, prepared):
        print(note, flush=True)
    environment.write(
        run_dir,
        {
            "run": config.seed,
            "split": config.dataset.split_seed,
            "base": config.model.tiny.base_seed,
        },
    )
    write_json(run_dir / "data.json", prepared.facts)


def _describe_model(tracker: Tracker, run_dir: Path, prepared: Prepared) -> None:
    """Writes and logs what the policy is made of."""
    summary = model_summary(prepared.start.policy, prepared.start.origin)
    write_json(run_dir / "model_summary.json", summary)
    columns = ["part", "type", "parameters", "trainable"]
    rows = [[part[key] for key in columns] for part in summary["parts"]]
    tracker.table("model", columns, rows, 0)
    tracker.summary({f"model/{key}": value for key, value in summary.items() if key != "parts"})


def _fit(
    config: Config,
    run_dir: Path,
    opened: Opened,
    measurer: Measurer,
    tracker: Tracker | None,
    checkpoint: Path | None,
) -> dict[str, float]:
    """Trains the policy in place and returns how long that took and what it needed.

    Args:
        tracker: of the first process; the others have none.
    """
    prepared, composite = opened.prepared, opened.composite
    devices, policy = prepared.start.devices, prepared.start.policy
    device = policy.device
    settings = config.trainer
    if settings.activation_checkpointing:
        policy.checkpoint_activations()
    if settings.compile:
        policy.compile_layers()
    loader = _loader(config, prepared, lambda: module.completed_steps)

    def validate(step: int) -> Mapping[str, float]:
        measurer.sample(policy, step, run_dir, tracker)
        found = measurer.validate(policy)
        trainer.checkpoint_callback.offer(step, found)
        return found

    module = PreferenceModule(
        policy,
        opened.reference if composite.needs_reference else None,
        composite,
        trainer_config=settings,
        optimizer_config=config.optimizer,
        steps=len(loader),
        seed=config.seed,
        log=_unlogged if tracker is None else tracker.log,
        mismatch=measurer.mismatch,
        validate=validate,
        collate=prepared.collate,
        world=devices.world,
    )
    first = checkpoint_step(checkpoint) if checkpoint else 0
    bar: StepBar | Heartbeat = Heartbeat(len(loader), settings.heartbeat_seconds)
    if settings.progress and sys.stderr.isatty():
        bar = StepBar(len(loader), first)
    trainer = build_trainer(settings, run_dir, len(loader), [bar])
    policy.train()
    started = time.perf_counter()
    with interruptible(), memory_explained():
        trainer.fit(
            module, loader, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True
        )
    devices.back(policy.eval(), device)
    return {
        "train/steps": float(module.completed_steps),
        "train/exported_step": float(trainer.checkpoint_callback.exported_step),
        "train/skipped_steps": float(module.skipped_steps),
        "train/seconds": time.perf_counter() - started,
        "train/peak_memory_gb": peak_memory(policy.device),
        **module.throughput.overall(),
    }


def _loader(config: Config, prepared: Prepared, first_step: Callable[[], int]) -> StepLoader:
    """The run's batches, of which this process has its share."""
    settings, world = config.trainer, prepared.start.devices.world
    return StepLoader(
        prepared.train,
        batch_size=settings.batch_size,
        microbatch_size=settings.microbatch_size,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        seed=config.seed,
        pad_id=prepared.pad_id,
        first_step=first_step,
        layout=prepared.layout,
        group_by_length=settings.group_by_length,
        rank=world.rank,
        processes=world.size,
    )


def _unlogged(metrics: Mapping[str, float], step: int) -> None:
    """What every process but the first does with its numbers."""


def _publish(tracker: Tracker, run_dir: Path, metrics: Mapping[str, Any]) -> None:
    """Sends to W&B what stands on disk."""
    tracker.summary(metrics)
    if (run_dir / "samples.jsonl").is_file():
        lines = (run_dir / "samples.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        columns = ["category", "before", "after", "verdict_before", "verdict_after", "chosen"]
        shown = [[row["prompt"][-1]["content"], *(row[key] for key in columns)] for row in rows]
        tracker.table("samples", ["prompt", *columns], shown, int(metrics["train/steps"]))
    if (run_dir / "preference_distribution.json").is_file():
        found = json.loads((run_dir / "preference_distribution.json").read_text(encoding="utf-8"))
        tracker.table("transport_flows", *table_rows(found), int(metrics["train/steps"]))
    for picture in sorted((run_dir / "plots").glob("*.png")):
        tracker.image(f"plots/{picture.stem}", picture)
    for name, kind in (
        ("data.json", "dataset"),
        ("samples.jsonl", "samples"),
        ("preference_distribution.json", "distribution"),
        ("model", "model"),
    ):
        if (run_dir / name).exists():
            tracker.artifact(f"{run_dir.name}-{Path(name).stem}", kind, run_dir / name)
