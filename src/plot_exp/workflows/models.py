"""Which weights a run starts from, and what its reference is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plot_exp.config.schema import Config, ModelConfig
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError
from plot_exp.models.dropout import set_dropout
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy, freeze, frozen_copy
from plot_exp.models.tiny import base_directory
from plot_exp.progress import Bar


@dataclass(frozen=True)
class Start:
    """The policy before training, and its tokenizer.

    Attributes:
        origin: the hub id or directory that the weights came from.
    """

    policy: Policy
    tokeniser: ChatTokeniser
    origin: str


def open_start(config: Config, examples: Sequence[PreferenceExample], bar: Bar) -> Start:
    """The policy's start; the base of `model=tiny` is trained on the examples, or cached."""
    model = config.model
    if model.name == "tiny":
        folder = base_directory(
            model.tiny,
            examples,
            config.dataset.max_length,
            Path(config.cache_dir).expanduser(),
            trained=model.weights == "pretrained",
            bar=bar,
        )
        model = model.model_copy(update={"name": str(folder), "weights": "pretrained"})
    tokenizer = load_tokenizer(model)
    policy = Policy(load_model(model))
    set_dropout(policy, config.trainer.dropout)
    return Start(policy, ChatTokeniser(tokenizer), model.name)


def open_saved(config: Config, folder: Path) -> Start:
    """An exported policy, from a run's model/ folder."""
    model = config.model.model_copy(
        # The folder holds the template that the run used.
        update={
            "name": str(folder),
            "weights": "pretrained",
            "revision": None,
            "chat_template": None,
        }
    )
    return Start(Policy(load_model(model)), ChatTokeniser(load_tokenizer(model)), str(folder))


def open_reference(config: Config, start: Start) -> Policy:
    """A frozen copy of the policy's start, or the model that `reference` names.

    Raises:
        UserError: the named model has another vocabulary.
    """
    if config.reference == "policy":
        return frozen_copy(start.policy)
    named = ModelConfig(name=config.reference, dtype=config.model.dtype)
    try:
        tokenizer, model = load_tokenizer(named), load_model(named)
    except UserError as error:
        raise UserError(str(error).replace("model.name=", "reference=", 1)) from error
    ours = start.tokeniser.tokenizer.get_vocab()
    if tokenizer.get_vocab() != ours:
        raise UserError(
            f"reference={config.reference}: its tokenizer differs from that of the policy "
            f"({start.origin}); log-probabilities of the same tokens are needed from both"
        )
    return freeze(Policy(model))
