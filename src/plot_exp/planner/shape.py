"""The model as a rehearsal builds it: the run's classes at its sizes, with few layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.models.adapter_folder import base_of, is_adapter
from plot_exp.models.dropout import set_dropout
from plot_exp.models.load import put_adapter
from plot_exp.models.policy import Policy
from plot_exp.models.shape import origin_of, shape_of
from plot_exp.workflows.device import weights_dtype


class _Unread(Policy):
    """A policy whose numbers cannot be compared, since there are none."""

    def _check_head(self) -> None:
        """Nothing to read."""


def model_shape(config: Config) -> Any:
    """transformers' configuration of the run's model, without weights and without a download.

    Raises:
        UserError: no shape is known: neither a preset's nor a directory's.
    """
    settings = config.model
    folder = Path(origin_of(settings))
    if is_adapter(folder):
        settings = settings.model_copy(update={"name": base_of(folder), "revision": None})
    if settings.shape.architecture is not None:
        # The published shape stands in the preset, whatever the weights.
        settings = settings.model_copy(update={"weights": "random"})
    try:
        return shape_of(settings)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.name={config.model.name}: its shape is not known here; name a directory with "
            "its config.json, or write it into model.shape (a plan downloads nothing)"
        ) from error


def with_layers(shape: Any, count: int) -> Any:
    """The same shape with fewer layers, of the first kinds."""
    fewer = copy.deepcopy(shape)
    text = fewer.get_text_config()
    text.num_hidden_layers = count
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[:count]
    return fewer


def period(shape: Any) -> int:
    """After how many layers their kinds repeat; all of them where they never do."""
    text = shape.get_text_config()
    kinds, count = list(getattr(text, "layer_types", None) or ()), text.num_hidden_layers
    if not kinds:
        return 1
    for length in range(1, count):
        if count % length == 0 and kinds == kinds[:length] * (count // length):
            return length
    return count


def build_policy(config: Config, shape: Any, *, adapted: bool = True) -> Policy:
    """The policy as `workflows.models.open_start` builds it, from a shape alone.

    Args:
        adapted: with the adapter that `model.lora` asks for.
    """
    from transformers import AutoModelForCausalLM

    settings = config.model
    own = shape.dtype or torch.float32
    dtype = weights_dtype(config.trainer)
    if dtype is None:
        dtype = own if settings.dtype == "auto" else getattr(torch, settings.dtype)
    options = {} if settings.attention == "auto" else {"attn_implementation": settings.attention}
    # Adapters are moved to where the weights are, which tensors of a rehearsal do not let happen.
    with unset_fake_temporarily(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(shape),
            dtype=dtype,
            trust_remote_code=settings.trust_remote_code,
            **options,
        )
        set_dropout(model, config.trainer.dropout)
        if adapted:
            lora = settings.lora.model_copy(update={"quantised": None})
            put_adapter(model, settings.model_copy(update={"lora": lora}), config.seed)
    _give_room(model)
    return _Unread(model.eval(), config.trainer.head_chunk)


def _give_room(model: nn.Module) -> None:
    """Puts tensors of the rehearsal in the place of those that have no memory at all."""
    roomy: dict[int, Any] = {}
    for module in model.modules():
        for name, one in module._parameters.items():
            if one is None:
                continue
            if id(one) not in roomy:
                empty = torch.empty(one.shape, dtype=one.dtype)
                roomy[id(one)] = nn.Parameter(empty, requires_grad=one.requires_grad)
            module._parameters[name] = roomy[id(one)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def layers_of(model: Any) -> list[nn.Module]:
    """The decoder's layers in their order: its longest list of modules."""
    lists = [one for one in model.get_decoder().modules() if isinstance(one, nn.ModuleList)]
    return max((list(one) for one in lists), key=len, default=[])
