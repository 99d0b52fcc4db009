"""Weights and tokenizers from a hub name or a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plot_exp.config.schema import ModelConfig
from plot_exp.errors import UserError

# A directory without tokenizer files is loaded as a tokenizer of a few special tokens.
SMALLEST_VOCABULARY = 16


def check(config: ModelConfig, key: str = "model.name") -> None:
    """Refuses a model that cannot be there, before anything heavy is imported.

    Args:
        key: what the user calls it.

    Raises:
        UserError: a directory that does not exist or holds no model; a missing template file.
    """
    name = config.name
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") > 1
    path = Path(_origin(config))
    if looks_local and not path.is_dir():
        raise UserError(f"{key}={name}: there is no such directory")
    if path.is_dir() and name != "tiny" and not (path / "config.json").is_file():
        raise UserError(
            f"{key}={name}: the directory holds no config.json; "
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
            _origin(config), revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except Exception as error:  # a broken file may raise nearly anything in there
        raise UserError(_not_loaded(config, "tokenizer", str(error))) from error
    if len(tokenizer) < SMALLEST_VOCABULARY:
        raise UserError(_not_loaded(config, "tokenizer", "there is no vocabulary"))
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
        UserError: it cannot be loaded, or lacks weights.
    """
    import torch

    try:
        if config.weights == "random":
            return _random(config)
        model, found = _pretrained(config)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a broken file may raise nearly anything in there
        raise UserError(_not_loaded(config, "weights", str(error))) from error
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            _not_loaded(config, "weights", f"{len(missing)} are missing, such as {missing[0]}")
        )
    return model


def _pretrained(config: ModelConfig) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        _origin(config),
        dtype=config.dtype,
        use_safetensors=True,
        output_loading_info=True,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
    )
    return model, found


def _random(config: ModelConfig) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    trusted = config.trust_remote_code
    shape = AutoConfig.from_pretrained(
        _origin(config), revision=config.revision, trust_remote_code=trusted
    )
    own = shape.dtype or torch.float32
    dtype = own if config.dtype == "auto" else getattr(torch, config.dtype)
    return AutoModelForCausalLM.from_config(shape, dtype=dtype, trust_remote_code=trusted)


def _origin(config: ModelConfig) -> str:
    return str(Path(config.name).expanduser()) if config.name.startswith("~") else config.name


def _not_loaded(config: ModelConfig, what: str, why: str) -> str:
    lines = why.strip().splitlines()
    first = lines[0].rstrip(".") if lines else "no reason given"
    return (
        f"model.name={config.name}: the {what} could not be loaded ({first}); "
        "give a hub id that this machine can reach or a directory with safetensors"
    )
