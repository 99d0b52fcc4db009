"""Which weights a run starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plot_exp.config.model import LoRAConfig, ShapeConfig
from plot_exp.config.schema import Config
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.models.dropout import set_dropout
from plot_exp.models.load import load_model, load_tokenizer, put_adapter
from plot_exp.models.policy import Policy, freeze
from plot_exp.models.random_start import random_directory
from plot_exp.models.tiny import base_directory
from plot_exp.progress import Bar
from plot_exp.workflows.device import device_of, weights_dtype
from plot_exp.workflows.devices import Devices, opened_on


@dataclass(frozen=True)
class Start:
    """The policy before training, and its tokenizer.

    Attributes:
        origin: the hub id or directory that the weights came from.
        devices: of the run, which the policy lies on once it is placed.
    """

    policy: Policy
    tokeniser: ChatTokeniser
    origin: str
    devices: Devices = field(default_factory=Devices)


def open_start(config: Config, examples: Sequence[PreferenceExample], bar: Bar) -> Start:
    """The policy's start; the base of `model=tiny` is trained on the examples, or cached."""
    model, cache_dir = config.model, Path(config.cache_dir).expanduser()
    if model.name == "tiny":
        folder = base_directory(
            model.tiny,
            examples,
            config.dataset.max_length,
            cache_dir,
            trained=model.weights == "pretrained",
            bar=bar,
        )
        model = model.model_copy(update={"name": str(folder), "weights": "pretrained"})
    elif model.weights == "random" and model.shape.architecture is not None:
        folder = random_directory(model, cache_dir)
        model = model.model_copy(update={"name": str(folder), "shape": ShapeConfig()})
    tokenizer = load_tokenizer(model)
    device = opened_on(config.trainer)
    loaded = load_model(model, config.seed, weights_dtype(config.trainer), device)
    set_dropout(loaded, config.trainer.dropout)
    put_adapter(loaded, model, config.seed)
    policy = Policy(loaded, config.trainer.head_chunk).to(device)
    return Start(policy, ChatTokeniser(tokenizer), model.name)


def reopened(config: Config, start: Start) -> Policy:
    """The policy's start again, frozen, from where its weights came from."""
    lora = LoRAConfig(quantised=config.model.lora.quantised)
    update: dict[str, object] = {"name": start.origin, "lora": lora}
    if start.origin != config.model.name:  # a folder that was made, with all that there is to say
        update["shape"] = ShapeConfig()
    if config.model.name == "tiny":
        update["weights"] = "pretrained"
    named = config.model.model_copy(update=update)
    device = opened_on(config.trainer)
    loaded = load_model(named, config.seed, weights_dtype(config.trainer), device)
    policy = Policy(loaded, config.trainer.head_chunk).to(device)
    return start.devices.place(freeze(policy))


def open_saved(config: Config, folder: Path) -> Start:
    """An exported policy, from a run's model/ folder."""
    model = config.model.model_copy(
        # The folder holds the template that the run used.
        update={
            "name": str(folder),
            "weights": "pretrained",
            "revision": None,
            "chat_template": None,
            "shape": ShapeConfig(),
            "lora": LoRAConfig(),
        }
    )
    loaded = load_model(model, dtype=weights_dtype(config.trainer))
    policy = Policy(loaded, config.trainer.head_chunk).to(device_of(config.trainer))
    return Start(policy, ChatTokeniser(load_tokenizer(model)), str(folder))
