"""Writes a policy as a `save_pretrained` folder that transformers loads."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from plot_exp.config.schema import Config, load
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError
from plot_exp.files import make_readable, unwritable
from plot_exp.models.adapter_folder import base_of, is_adapter
from plot_exp.models.adapters import has_adapter, merge, save_adapter
from plot_exp.models.policy import Policy, load_trained
from plot_exp.progress import choose
from plot_exp.workflows.engine import last_checkpoint
from plot_exp.workflows.leakage import Leakage
from plot_exp.workflows.prepare import prepare


def export_model(
    policy: Policy,
    tokeniser: ChatTokeniser,
    folder: Path,
    *,
    keep_adapter: bool = False,
    origin: str = "",
) -> None:
    """Weights as safetensors, tokenizer, chat template and generation config; whole or not at all.

    An adapter is merged into the policy's weights, in place, or written alone.

    Args:
        keep_adapter: write the adapter alone, in peft's layout.
        origin: the hub id or directory of the weights beneath it.

    Raises:
        RunError: the disk cannot be written.
    """
    try:
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            _save_weights(policy, made, origin if keep_adapter else None)
            tokeniser.tokenizer.save_pretrained(made)
            make_readable(made)
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def _save_weights(policy: Policy, folder: Path, origin: str | None) -> None:
    adapted = has_adapter(policy.model)
    if adapted and origin is not None:
        beneath = Path(origin)
        if is_adapter(beneath):
            beneath = Path(base_of(beneath))
            origin = str(beneath)
        # An absolute path, since the folder may be read from anywhere.
        save_adapter(policy.model, folder, str(beneath.absolute()) if beneath.is_dir() else origin)
        return
    if adapted:
        merge(policy.model)
    policy.model.save_pretrained(folder)


def run(config: Config, run_dir: Path) -> dict[str, float]:
    """`task=export`: the model of a run's newest checkpoint, finished or not, as run/model/.

    Raises:
        UserError: the run has no checkpoint that can be read.
    """
    assert config.run is not None
    source = Path(config.run)
    checkpoint = last_checkpoint(source)
    if checkpoint is None:
        raise UserError(f"run={source}: there is no checkpoint that can be read; train it first")
    trained = load(source / "config.yaml")
    start = prepare(trained, choose(config.trainer.progress), Leakage.of_run(source)).start
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    weights = {
        key.removeprefix("policy."): value
        for key, value in state.items()
        if key.startswith("policy.")
    }
    load_trained(start.policy, weights)
    export_model(
        start.policy,
        start.tokeniser,
        source / "model",
        keep_adapter=config.model.lora.export == "adapter",
        origin=start.origin,
    )
    print(f"{source / 'model'} holds the policy of {checkpoint.name}")
    return {}
