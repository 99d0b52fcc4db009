"""Weights and tokenizers from a hub name or a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plot_exp.config.model import ModelConfig
from plot_exp.errors import UserError
from plot_exp.models.adapter_folder import base_of, facts_of, is_adapter
from plot_exp.models.shape import check_pretrained, origin_of, shape_of
from plot_exp.models.weight_files import check_files

if TYPE_CHECKING:
    import torch

# A directory without tokenizer files is loaded as a tokenizer of a few special tokens.
SMALLEST_VOCABULARY = 16
# A directory with none of these has no tokenizer, not even one in Python.
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json")
# The value of `model.chat_template` for the layout of turns that needs none.
PLAIN = "plain"


def check(config: ModelConfig, key: str = "model.name") -> None:
    """Refuses a model that cannot be there, before anything heavy is imported.

    Args:
        key: what the user calls it.

    Raises:
        UserError: a directory that does not exist or holds no model; a missing template file.
    """
    name = config.name
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") > 1
    path = Path(origin_of(config))
    if looks_local and not path.is_dir():
        raise UserError(f"{key}={name}: there is no such directory")
    if path.is_dir() and name != "tiny" and is_adapter(path):
        _check_adapter(config, path, key)
    elif path.is_dir() and name != "tiny":
        if not (path / "config.json").is_file():
            raise UserError(
                f"{key}={name}: the directory holds no config.json; "
                "name a folder that save_pretrained wrote, such as a run's model/"
            )
        _check_facts(path, f"{key}={name}")
        if config.weights == "pretrained":
            _check_weights(path, f"{key}={name}")
        _check_tokenizer(path, f"{key}={name}")
    template = config.chat_template
    if template not in (None, PLAIN) and not Path(template).is_file():
        raise UserError(f"model.chat_template={template}: there is no such file; or write {PLAIN}")


def _check_weights(folder: Path, named: str) -> None:
    try:
        check_files(folder)
    except UserError as error:
        raise UserError(f"{named}: the weights could not be loaded: {error}") from error


def _check_facts(folder: Path, named: str) -> None:
    try:
        known = isinstance(json.loads((folder / "config.json").read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        known = False
    if not known:
        raise UserError(f"{named}: config.json there is no JSON object; copy or download it again")


def _check_tokenizer(folder: Path, named: str) -> None:
    if not any(True for pattern in TOKENIZER_FILES for _ in folder.glob(pattern)):
        raise UserError(
            f"{named}: the directory holds no tokenizer; put tokenizer.json, tokenizer_config.json "
            "and the chat template, where there is one, of the model that it was made from beside "
            "the weights"
        )


def _check_adapter(config: ModelConfig, folder: Path, key: str) -> None:
    """An adapter needs the model that it belongs to, and is trained on in its own shape."""
    base = base_of(folder)
    if base.startswith(("/", ".", "~")) and not Path(base).expanduser().is_dir():
        raise UserError(
            f"{key}={config.name}: an adapter of {base}, which is not there; put the right "
            "directory or hub id into base_model_name_or_path of its adapter_config.json"
        )
    own = facts_of(folder).get("r")
    if config.lora.rank is not None and config.lora.rank != own:
        raise UserError(
            f"{key}={config.name} with model.lora.rank={config.lora.rank}: the adapter there has "
            f"rank {own}; write model.lora.rank={own} to train it on, or model.lora.rank=null to "
            "merge it into the weights and train those"
        )


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's tokenizer, with a pad token and the chosen chat template.

    An adapter's folder without one has that of the model beneath.

    Raises:
        UserError: it cannot be loaded, or has no end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            _tokenizer_origin(config),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )
    except Exception as error:  # a broken file may raise nearly anything in there
        raise UserError(_not_loaded(config, "tokenizer", str(error))) from error
    if len(tokenizer) < SMALLEST_VOCABULARY:
        raise UserError(_not_loaded(config, "tokenizer", "there is no vocabulary"))
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: its tokenizer has no end token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.chat_template == PLAIN:
        tokenizer.chat_template = None  # what `ChatTokeniser` then takes
    elif config.chat_template is not None:
        tokenizer.chat_template = Path(config.chat_template).read_text(encoding="utf-8")
    return tokenizer


def load_model(
    config: ModelConfig,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Any:
    """A causal language model: safetensors only, no remote code unless asked for.

    Weights go file by file into a model that has none yet, each in the precision that it will
    have, so that no second copy of the model is made on the way.

    A folder with an adapter gives the model that it belongs to with the adapter in it, ready to be
    trained on, or merged into the weights where `config.lora` asks for no adapter. A fresh one
    (`put_adapter`) is not the loader's. Beneath an adapter weights may be quantised.

    Args:
        seed: of the weights, with `weights=random`.
        dtype: in place of `config.dtype`.
        device: where weights are quantised, and the model then is; the CPU by default.

    Raises:
        UserError: it cannot be loaded, or lacks weights.
    """
    folder = Path(origin_of(config))
    if not is_adapter(folder):
        model = _load_plain(config, seed, dtype)
        _quantise(model, config, device)
        return model
    from plot_exp.models.adapters import load_adapter, merge

    _check_adapter(config, folder, "model.name")
    # A revision is one of the adapter's repository, not of the model's beneath.
    beneath = config.model_copy(update={"name": base_of(folder), "revision": None})
    model = _load_plain(beneath, seed, dtype)
    _quantise(model, config, device)
    trained = config.lora.rank is not None
    load_adapter(model, folder, trained=trained, dropout=config.lora.dropout)
    if not trained and config.lora.quantised is None:
        merge(model)
    return model


def _quantise(model: Any, config: ModelConfig, device: torch.device | None) -> None:
    if config.lora.quantised is None:
        return
    import torch

    from plot_exp.models.quantised import quantise

    quantise(model, device or torch.device("cpu"))


def put_adapter(model: Any, config: ModelConfig, seed: int) -> None:
    """Puts the adapter that `config.lora` asks for into a model that came without one, in place."""
    if config.lora.rank is None or hasattr(model, "peft_config"):
        return
    from plot_exp.models.adapters import add_adapter

    add_adapter(model, config.lora, seed)


def _load_plain(config: ModelConfig, seed: int, dtype: torch.dtype | None) -> Any:
    import torch

    folder = Path(origin_of(config))
    if config.weights == "pretrained" and (folder / "config.json").is_file():
        _check_weights(folder, f"model.name={config.name}")
    try:
        if config.weights == "random":
            return _random(config, seed, dtype)
        model, found = _pretrained(config, dtype)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a broken file may raise nearly anything in there
        raise UserError(_not_loaded(config, "weights", str(error))) from error
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            _not_loaded(config, "weights", f"{len(missing)} are missing, such as {missing[0]}")
        )
    if unfit := sorted(found["mismatched_keys"]):
        name, stored, expected = unfit[0]
        why = f"{name} is {list(stored)} in the files and {list(expected)} by config.json"
        raise UserError(_not_loaded(config, "weights", why))
    if hasattr(model, "peft_config"):
        raise UserError(
            f"model.name={config.name}: an adapter on the hub; download it, and name the folder"
        )
    return model


def _pretrained(config: ModelConfig, dtype: torch.dtype | None) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    check_pretrained(config)
    model, found = AutoModelForCausalLM.from_pretrained(
        origin_of(config),
        dtype=dtype or config.dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused by name
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        **_attention(config),
    )
    return model, found


def _random(config: ModelConfig, seed: int, dtype: torch.dtype | None) -> Any:
    """The shape alone, the same weights for the same seed whatever was drawn before."""
    import torch
    from transformers import AutoModelForCausalLM

    shape = shape_of(config)
    if dtype is None:
        own = shape.dtype or torch.float32
        dtype = own if config.dtype == "auto" else getattr(torch, config.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            shape, dtype=dtype, trust_remote_code=config.trust_remote_code, **_attention(config)
        )
    return model.eval()


def _attention(config: ModelConfig) -> dict[str, str]:
    return {} if config.attention == "auto" else {"attn_implementation": config.attention}


def _tokenizer_origin(config: ModelConfig) -> str:
    folder = Path(origin_of(config))
    if is_adapter(folder) and not (folder / "tokenizer_config.json").is_file():
        return base_of(folder)
    return str(folder) if folder.is_dir() else config.name


def _not_loaded(config: ModelConfig, what: str, why: str) -> str:
    lines = why.strip().splitlines()
    first = lines[0].rstrip(".") if lines else "no reason given"
    said = f"model.name={config.name}: the {what} could not be loaded"
    if "custom code" in first:
        return (
            f"{said}: they need code that comes with the model, and that is not run; read it, "
            "then allow it with model.trust_remote_code=true"
        )
    if Path(origin_of(config)).is_dir():
        return f"{said} ({first})"
    return (
        f"{said} ({first}); "
        "give a hub id that this machine can reach or a directory with safetensors"
    )
