"""What a model is shaped like: transformers' configuration of it, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plot_exp.config.model import ModelConfig, ShapeConfig
from plot_exp.errors import UserError

# What a pretrained model must have as `model.shape` says; the rest its own file knows best.
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
# Made of other values where a configuration does not set them.
DERIVED = ("head_dim", "layer_types")


def origin_of(config: ModelConfig) -> str:
    """The hub id or directory of `model.name`."""
    return str(Path(config.name).expanduser()) if config.name.startswith("~") else config.name


def shape_of(config: ModelConfig) -> Any:
    """transformers' configuration of a model.

    Nothing is read or downloaded for `tiny`, or where `config.shape` names its architecture;
    otherwise the model's own configuration file is.

    Raises:
        UserError: values of `config.shape` that do not fit one another, or the pretrained weights.
        OSError, ValueError: the model's own configuration cannot be read.
    """
    if config.name == "tiny":
        from plot_exp.models.tiny import tiny_shape

        return tiny_shape(config.tiny)
    if config.shape.architecture is not None:
        return _published(config.shape)
    if config.weights == "random":
        return _replaced(_own(config), config.shape)
    check_pretrained(config)
    return _own(config)


def check_pretrained(config: ModelConfig) -> None:
    """Refuses `config.shape` where the pretrained weights have another one.

    Raises:
        UserError: they do.
        OSError, ValueError: the model's own configuration cannot be read.
    """
    given = config.shape.given()
    if not given:
        return
    own = _own(config)
    for name in SIZES:
        found = getattr(own, name, None)
        if name in given and given[name] != found:
            raise UserError(
                f"model.shape.{name}={given[name]}: the pretrained weights of {config.name} have "
                f"{found}; write model.weights=random for the shape alone, or model=hf "
                "model.name=ID_OR_DIR for another model"
            )


def _own(config: ModelConfig) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(
        origin_of(config), revision=config.revision, trust_remote_code=config.trust_remote_code
    )


def _published(shape: ShapeConfig) -> Any:
    import torch
    from transformers import AutoConfig

    missing = [name for name in SIZES if getattr(shape, name) is None]
    if missing:
        raise UserError(f"model.shape.{missing[0]} is missing: model.shape.architecture is set")
    own: Any = AutoConfig.for_model(shape.architecture, **shape.given())
    own.dtype = torch.bfloat16  # as all of them are published
    return own


def _replaced(own: Any, shape: ShapeConfig) -> Any:
    """A configuration with some values replaced, and what follows from them made anew."""
    given = shape.given()
    if not given:
        return own
    unknown = sorted(name for name in given if name in SIZES and not hasattr(own, name))
    if unknown:
        raise UserError(
            f"model.shape.{unknown[0]}: {type(own).__name__} has no such value; "
            "change the model's own config.json"
        )
    plain = {key: value for key, value in own.to_dict().items() if key not in DERIVED}
    return type(own).from_dict(plain | given)
