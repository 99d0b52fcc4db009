"""Frozen weights in four bits beneath an adapter (QLoRA, arXiv 2305.14314), through bitsandbytes.

The linear layers of the decoder are kept as NF4, whose scales are quantised once more; embeddings,
norms and the head stay as they were loaded. bitsandbytes is imported only where it is used.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from plot_exp.errors import UserError


def quieten() -> None:
    """Keeps bitsandbytes from naming the faster kernels that it does not find.

    To be called before it is imported, which peft does too wherever it is installed.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def require_bitsandbytes(key: str) -> Any:
    """The package, with the parts that are used here.

    Args:
        key: the setting that needs it.

    Raises:
        UserError: it is not installed, or cannot be imported on this machine.
    """
    quieten()
    try:
        import bitsandbytes
        import bitsandbytes.functional
        import bitsandbytes.nn
        import bitsandbytes.optim
    except ImportError as error:
        raise UserError(
            f"{key} needs bitsandbytes, which is not installed here: "
            "pip install 'plot-exp[quantised]'"
        ) from error
    except Exception as error:  # its libraries are looked for when it is imported
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}: bitsandbytes cannot be used on this machine ({first})") from error
    return bitsandbytes


def quantise(model: nn.Module, device: torch.device) -> None:
    """Puts a model on a device, the linear layers of its decoder as NF4, in place.

    One layer is converted after the other, so that the model is never on the device as a whole in
    its own precision.

    Raises:
        UserError: see `require_bitsandbytes`.
    """
    bitsandbytes = require_bitsandbytes("model.lora.quantised")
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and layer is not head:
            replace_layer(model, name, _in_four_bits(bitsandbytes, layer, device))
    model.to(device)
    # peft asks for this before it chooses the class of its layers.
    model.is_loaded_in_4bit = True  # type: ignore[assignment]


def _in_four_bits(bitsandbytes: Any, layer: nn.Linear, device: torch.device) -> nn.Module:
    made = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=layer.weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = bitsandbytes.nn.Params4bit(
        layer.weight.detach(),
        requires_grad=False,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
    )
    made.bias = layer.bias
    made.requires_grad_(False)
    # On some CPUs weights would be repacked outside of training, with scales rounded to bfloat16:
    # policy and reference would compute with other numbers.
    made.support_avx512bf16_for_cpu = False
    found: nn.Module = made.to(device)  # which quantises
    return found


def is_quantised(model: nn.Module) -> bool:
    """Whether `quantise` was here."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def dequantise(model: nn.Module) -> None:
    """Gives every quantised layer its numbers as ordinary weights again, in place.

    They are those that were computed with, not those before quantisation. An adapter must have
    been taken out.
    """
    bitsandbytes = require_bitsandbytes("model.lora.quantised")
    for name, layer in list(model.named_modules()):
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            plain = nn.Linear(
                layer.in_features, layer.out_features, layer.bias is not None, device="meta"
            )
            numbers = bitsandbytes.functional.dequantize_4bit(
                layer.weight.data, layer.weight.quant_state
            )
            plain.weight = nn.Parameter(numbers.to(layer.compute_dtype))
            plain.bias = layer.bias
            replace_layer(model, name, plain)
    model.is_loaded_in_4bit = False  # type: ignore[assignment]


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a layer in the place of the one that has this name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
