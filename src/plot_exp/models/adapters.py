"""Low-rank adapters beside frozen weights, through peft, which is imported only where one is used.

The model keeps its own class: adapters are injected into its linear layers. `POLICY` is the
adapter that is trained. Where the policy's start came with an adapter, `START` is a frozen second
copy of it: the reference is the start with what it came with, not the bare weights beneath.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plot_exp.config.model import LoRAConfig
from plot_exp.errors import UserError
from plot_exp.models.adapter_folder import WEIGHTS_FILE
from plot_exp.models.dropout import TokenDropout
from plot_exp.models.quantised import dequantise, is_quantised, quieten, replace_layer

POLICY = "default"
START = "start"
# peft writes its names as seen from its own wrapper.
PREFIX = "base_model.model."


def _peft() -> Any:
    quieten()
    try:
        import peft
    except ImportError as error:
        raise UserError(
            "adapters need peft, which is not installed here: pip install 'plot-exp[lora]'"
        ) from error
    return peft


def add_adapter(model: nn.Module, config: LoRAConfig, seed: int) -> None:
    """Freezes the model and puts a fresh adapter into it; the outputs stay as they are.

    Args:
        model: a transformers model; changed in place.
        seed: of the adapter's random half.

    Raises:
        UserError: peft is missing, or a target module is not there.
    """
    peft = _peft()
    assert config.rank is not None
    targets = config.target_modules
    _check_targets(model, targets)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank if config.alpha is None else config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=config.rslora,
        use_dora=config.dora,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(model, settings, POLICY)


def load_adapter(
    model: nn.Module, folder: Path, *, trained: bool, dropout: float | None = None
) -> None:
    """Puts the adapter of a folder into the model it was made for, in place.

    Args:
        trained: it is to be trained on, so that a frozen copy stays beside it as the reference.
        dropout: replaces the adapter's own.

    Raises:
        UserError: the folder's adapter does not fit the model, or is no adapter for it.
    """
    from safetensors.torch import load_file

    peft = _peft()
    try:
        settings = peft.LoraConfig.from_pretrained(str(folder))
        weights = load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # peft and safetensors raise nearly anything for a broken file
        raise UserError(f"{folder}: the adapter cannot be read ({error})") from error
    settings.inference_mode = False
    if dropout is not None:
        settings.lora_dropout = dropout
    for name in (POLICY, START) if trained else (POLICY,):
        _inject(model, settings, name)
        _set_weights(model, weights, name, folder)
    _activate(model, POLICY)


def _inject(model: nn.Module, settings: Any, name: str) -> None:
    peft = _peft()
    try:
        with warnings.catch_warnings():
            # A second adapter in one model is what `START` is.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            peft.inject_adapter_in_model(settings, model, name)
    except ValueError as error:
        raise UserError(
            f"model.lora.target_modules: {str(error).splitlines()[0].rstrip('.')}; "
            f"the model's linear layers are {_linear_layers(model)}"
        ) from error
    _keep_in_float32(model, name)
    _drop_by_token(model)


def _check_targets(model: nn.Module, targets: str | list[str]) -> None:
    """peft leaves out what it does not find, as long as it finds one."""
    if isinstance(targets, str):
        return
    names = [f".{name}" for name, _ in model.named_modules()]
    for target in targets:
        if not any(name.endswith(f".{target}") for name in names):
            raise UserError(
                f"model.lora.target_modules: {target} is no layer of the model; "
                f"its linear layers are {_linear_layers(model)}"
            )


def _linear_layers(model: nn.Module) -> str:
    linear = [key for key, one in model.named_modules() if isinstance(one, nn.Linear)]
    return ", ".join(sorted({key.rpartition(".")[2] for key in linear}))


def _keep_in_float32(model: nn.Module, name: str) -> None:
    """An adapter beside weights of half precision is trained in fp32, where small steps count."""
    for key, parameter in model.named_parameters():
        if (
            ".lora_" in key
            and f".{name}" in key
            and parameter.dtype in (torch.bfloat16, torch.float16)
        ):
            parameter.data = parameter.data.float()


def _drop_by_token(model: nn.Module) -> None:
    """Gives the adapters dropout masks that belong to the tokens (see `dropout`)."""
    for layer, module in enumerate(adapted_layers(model)):
        for name, dropout in module.lora_dropout.items():
            if isinstance(dropout, nn.Dropout):
                # Beyond the numbers of the model's own modules.
                module.lora_dropout[name] = TokenDropout(dropout.p, 1_000_000 + layer)


def _set_weights(model: nn.Module, weights: dict[str, Tensor], name: str, folder: Path) -> None:
    peft = _peft()
    given = {key.removeprefix(PREFIX): value for key, value in weights.items()}
    own = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    unfit = sorted(own.keys() ^ given.keys())
    if unfit:
        raise UserError(
            f"{folder}: the adapter was made for another model; {unfit[0]} stands only in "
            f"{'the model' if unfit[0] in own else 'the adapter'}"
        )
    try:
        peft.set_peft_model_state_dict(model, given, adapter_name=name)
    except RuntimeError as error:
        raise UserError(f"{folder}: the adapter does not fit the model ({error})") from error


def adapted_layers(model: nn.Module) -> list[Any]:
    """The layers that carry an adapter; none for a plain model."""
    if not hasattr(model, "peft_config"):
        return []
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def has_adapter(model: nn.Module) -> bool:
    """Whether an adapter is trained beside frozen weights."""
    return bool(adapted_layers(model))


def _activate(model: nn.Module, name: str) -> None:
    for layer in adapted_layers(model):
        layer.set_adapter(name)


@contextmanager
def as_started(model: nn.Module) -> Iterator[None]:
    """The policy's start, for the moment: with the adapter that it came with, or without one."""
    layers = adapted_layers(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    came_with = START in getattr(model, "peft_config", {})
    try:
        for layer in layers:
            if came_with:
                layer.set_adapter(START, inference_mode=True)
            else:
                layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            if came_with:
                layer.set_adapter(POLICY)
            else:
                layer.enable_adapters(True)
        for parameter in trainable:
            parameter.requires_grad_(True)


def merge(model: nn.Module) -> None:
    """Adds the trained adapter into the weights and takes every adapter out, in place.

    Quantised weights become ordinary ones first, with the numbers that were computed with.
    """
    if is_quantised(model):
        _onto_ordinary_weights(model)
    layers = {id(layer) for layer in adapted_layers(model)}
    for name, layer in list(model.named_modules()):
        if id(layer) in layers:
            layer.merge(adapter_names=[POLICY])
            replace_layer(model, name, layer.get_base_layer())
    del model.peft_config
    model.requires_grad_(True)


def _onto_ordinary_weights(model: nn.Module) -> None:
    """The trained adapter, on dequantised weights."""
    settings: Any = model.peft_config[POLICY]  # type: ignore[index]
    weights = _peft().get_peft_model_state_dict(
        model, adapter_name=POLICY, save_embedding_layers=False
    )
    adapted = {id(layer) for layer in adapted_layers(model)}
    for name, layer in list(model.named_modules()):
        if id(layer) in adapted:
            base: Any = layer
            replace_layer(model, name, base.get_base_layer())
    del model.peft_config
    dequantise(model)
    _inject(model, settings, POLICY)
    _set_weights(model, weights, POLICY, Path())


def save_adapter(model: nn.Module, folder: Path, origin: str) -> None:
    """Writes the trained adapter alone, in peft's layout.

    Args:
        origin: the hub id or directory of the weights beneath.
    """
    from safetensors.torch import save_file

    state = {
        PREFIX + key: value.detach().cpu().contiguous()
        for key, value in _peft()
        .get_peft_model_state_dict(model, adapter_name=POLICY, save_embedding_layers=False)
        .items()
    }
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    settings: Any = model.peft_config[POLICY]  # type: ignore[index]
    settings.base_model_name_or_path = origin
    settings.save_pretrained(str(folder))
