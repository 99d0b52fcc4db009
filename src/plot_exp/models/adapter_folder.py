"""What a folder that holds an adapter says of itself, read without importing anything heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plot_exp.errors import UserError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a directory holds an adapter and not a whole model."""
    return (folder / CONFIG_FILE).is_file()


def facts_of(folder: Path) -> dict[str, Any]:
    """What the adapter's configuration says.

    Raises:
        UserError: it cannot be read, or is no configuration of a low-rank adapter.
    """
    try:
        facts = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG_FILE} cannot be read ({error})") from error
    if not isinstance(facts, dict) or facts.get("peft_type") != "LORA":
        raise UserError(f"{folder / CONFIG_FILE}: only adapters with peft_type LORA are known")
    return facts


def base_of(folder: Path) -> str:
    """The hub id or directory of the weights that an adapter belongs to.

    Raises:
        UserError: the adapter's configuration does not say.
    """
    named = facts_of(folder).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise UserError(
            f"{folder / CONFIG_FILE}: base_model_name_or_path does not say which model the "
            "adapter belongs to"
        )
    beside = folder / named
    return str(beside) if not Path(named).is_absolute() and beside.is_dir() else named
