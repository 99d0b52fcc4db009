"""Writes a policy as a folder that transformers or peft loads, with a model card, or pushes it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from plot_exp.config.schema import Config, load
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError
from plot_exp.files import make_readable, unwritable, write_text
from plot_exp.models.adapter_folder import CONFIG_FILE, base_of, is_adapter
from plot_exp.models.adapters import has_adapter, merge, save_adapter
from plot_exp.models.policy import Policy, load_trained
from plot_exp.progress import choose, quiet_libraries
from plot_exp.publishing.card import Exported, model_card
from plot_exp.publishing.hub import Hub
from plot_exp.report.contents import read
from plot_exp.tracking.address import known_address
from plot_exp.workflows.checkpoint_choice import choose_checkpoint, read_weights
from plot_exp.workflows.engine import checkpoint_step
from plot_exp.workflows.leakage import Leakage
from plot_exp.workflows.models import Start, open_start
from plot_exp.workflows.prepare import prepare


def export_model(
    policy: Policy,
    tokeniser: ChatTokeniser,
    folder: Path,
    *,
    keep_adapter: bool = False,
    origin: str = "",
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
    texts: Mapping[str, str] | None = None,
) -> None:
    """Weights as safetensors, tokenizer, chat template and generation config; whole or not at all.

    An adapter is merged into the policy's weights, in place, or written alone.

    Args:
        keep_adapter: write the adapter alone, in peft's layout.
        origin: the hub id or directory of the weights beneath it.
        dtype: the policy's weights are cast to it, in place, behind merging.
        texts: further files by name.

    Raises:
        RunError: the disk cannot be written.
    """
    try:
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-", suffix=".part"))
        try:
            keep_adapter = keep_adapter and has_adapter(policy.model)
            _settle_weights(policy, dtype, merged=not keep_adapter)
            if keep_adapter:
                save_adapter(policy.model, made, _beneath(origin))
            else:
                policy.model.save_pretrained(made, max_shard_size=max_shard_size)
            tokeniser.tokenizer.save_pretrained(made)
            for name, text in (texts or {}).items():
                write_text(made / name, text)
            make_readable(made)
            _take_place(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def _settle_weights(policy: Policy, dtype: torch.dtype | None, *, merged: bool) -> None:
    if merged and has_adapter(policy.model):
        merge(policy.model)
    if dtype is not None:
        policy.model.to(dtype=dtype)


def _beneath(origin: str) -> str:
    """What an adapter's folder names as its base."""
    path = Path(origin)
    if is_adapter(path):
        origin = base_of(path)
        path = Path(origin)
    # An absolute path, since the folder may be read from anywhere.
    return str(path.absolute()) if path.is_dir() else origin


def _take_place(made: Path, folder: Path) -> None:
    """The old folder goes once the new one is in its place."""
    if not folder.exists():
        made.rename(folder)
        return
    old = made.with_name(f"{made.name}-old")
    folder.rename(old)
    try:
        made.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def run(config: Config, run_dir: Path) -> dict[str, float]:
    """`task=export`: the policy of a run's checkpoint, finished or not, as a folder of its own.

    Raises:
        UserError: the run has no such checkpoint, the folder is in the way, or the hub refuses.
    """
    assert config.run is not None
    quiet_libraries()
    settings, source = config.export, Path(config.run)
    target = source / "export" if settings.path is None else Path(settings.path).expanduser()
    _check_target(target, overwrite=settings.overwrite)
    trained = _as_one_process(load(source / "config.yaml"))
    if trained.task != "train":
        raise UserError(f"run={source}: this was task={trained.task}; only training leaves a model")
    keep = _keeps_adapter(config, trained)
    wanted = settings.checkpoint or trained.trainer.export_checkpoint
    checkpoint = choose_checkpoint(source, wanted)
    hub = None if settings.push_to is None else Hub(settings.push_to)
    start = _opened(config, trained, source)
    if keep and hub is not None and Path(_beneath(start.origin)).is_dir():
        raise UserError(
            f"export.push_to={settings.push_to} with export.adapter=keep: the adapter belongs to a "
            "model in a folder of this machine, which nobody else has; write export.adapter=merge"
        )
    load_trained(start.policy, read_weights(checkpoint))
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    dtype = None if settings.dtype is None else getattr(torch, settings.dtype)
    export_model(
        start.policy,
        start.tokeniser,
        target,
        keep_adapter=keep,
        origin=start.origin,
        dtype=dtype,
        max_shard_size=settings.max_shard_size,
        texts={"README.md": _card(config, trained, start, checkpoint, keep=keep)},
    )
    print(f"{target} holds the policy of {checkpoint.name}", flush=True)
    if hub is not None:
        print(f"pushed to {hub.push(target, private=settings.private)}", flush=True)
    return {}


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise UserError(
            f"{target} is there already; name another folder with export.path=FOLDER, or replace "
            "it with export.overwrite=true"
        )
    known = ("config.json", CONFIG_FILE)
    model = any((target / name).is_file() for name in known)
    if target.is_symlink() or not target.is_dir() or not (model or not any(target.iterdir())):
        raise UserError(
            f"{target} is no exported model, so that export.overwrite=true does not replace it; "
            "name another folder with export.path=FOLDER"
        )


def _as_one_process(trained: Config) -> Config:
    """The run's settings for a process that only reads weights."""
    update = {"accelerator": "cpu", "strategy": "single", "devices": 1, "nodes": 1}
    return trained.model_copy(update={"trainer": trained.trainer.model_copy(update=update)})


def _keeps_adapter(config: Config, trained: Config) -> bool:
    keep = config.export.adapter == "keep"
    if keep and trained.model.lora.rank is None:
        raise UserError(
            f"export.adapter=keep: the run {config.run} trained every weight, so that there is no "
            "adapter; leave it out"
        )
    if keep and trained.model.weights == "random":
        raise UserError(
            "export.adapter=keep: the weights beneath are random and were kept nowhere, so that "
            "nobody could load the adapter; write export.adapter=merge"
        )
    return keep or (config.export.adapter is None and trained.model.lora.export == "adapter")


def _opened(config: Config, trained: Config, source: Path) -> Start:
    """The run's start; the data are read only where the start is made of them."""
    bar = choose(config.trainer.progress)
    if trained.model.name == "tiny":
        return prepare(trained, bar, Leakage.of_run(source)).start
    return open_start(trained, [], bar)


def _card(config: Config, trained: Config, start: Start, checkpoint: Path, *, keep: bool) -> str:
    assert config.run is not None
    settings = config.export
    own = _dtypes(start.policy, keep=keep)
    base = _beneath(start.origin)
    on_hub = not Path(base).is_dir() and trained.model.weights == "pretrained"
    exported = Exported(
        base=base if on_hub else None,
        adapter=keep,
        step=checkpoint_step(checkpoint),
        dtype=settings.dtype or own,
        measured_in=own if settings.dtype not in (None, own, "float32") else None,
        chat_template=start.tokeniser.tokenizer.chat_template is not None,
        repository=settings.push_to,
        license=settings.license,
        wandb=known_address(Path(config.run)),
    )
    return model_card(read(Path(config.run)), exported)


def _dtypes(policy: Policy, *, keep: bool) -> str:
    """The precisions of what is written: the adapter's, or of the weights with it merged in."""
    found = {
        str(parameter.dtype).removeprefix("torch.")
        for name, parameter in policy.model.named_parameters()
        if parameter.is_floating_point() and keep == (".lora_" in name)
    }
    return " and ".join(sorted(found))
