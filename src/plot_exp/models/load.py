"""Weights and tokenizers from a hub name or a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plot_exp.config.schema import ModelConfig
from plot_exp.errors import UserError


def check(config: ModelConfig) -> None:
    """Refuses a model that cannot be there, before anything heavy is imported.

    Raises:
        UserError: a directory that does not exist or holds no model; a missing template file.
    """
    name = config.name
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") > 1
    path = Path(name).expanduser()
    if looks_local and not path.is_dir():
        raise UserError(f"model.name={name}: there is no such directory")
    if path.is_dir() and name != "tiny" and not (path / "config.json").is_file():
        raise UserError(
            f"model.name={name}: the directory holds no config.json; "
            "name a folder that save_pretrained wrote, such as a run's model/"
        )
    if config.chat_template is not None and not Path(config.chat_template).is_file():
        raise UserError(f"model.chat_template={config.chat_template}: there is no such file")


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's tokenizer, with a pad token and the chosen chat template.

    Raises:
        UserError: it cannot be loaded, or has no end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            config.name, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UserError(_not_loaded(config, "tokenizer", error)) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: its tokenizer has no end token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.chat_template is not None:
        tokenizer.chat_template = Path(config.chat_template).read_text(encoding="utf-8")
    return tokenizer


def load_model(config: ModelConfig) -> Any:
    """A causal language model: safetensors only, no remote code unless asked for.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        if config.weights == "random":
            shape = AutoConfig.from_pretrained(config.name, **options)
            return AutoModelForCausalLM.from_config(shape, dtype=_dtype(config))
        return AutoModelForCausalLM.from_pretrained(
            config.name, dtype=_dtype(config), use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        raise UserError(_not_loaded(config, "weights", error)) from error


def _dtype(config: ModelConfig) -> Any:
    import torch

    return "auto" if config.dtype == "auto" else getattr(torch, config.dtype)


def _not_loaded(config: ModelConfig, what: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"model.name={config.name}: the {what} could not be loaded ({first}); "
        "give a hub id that this machine can reach or a directory with safetensors"
    )
