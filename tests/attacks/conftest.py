"""Models to attack: two random ones whose outputs depend on every token, and a trained one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from plot_exp.attacks.model import AttackedModel
from plot_exp.config.model import ModelConfig, TinyConfig
from plot_exp.data.behaviours import Behaviour
from plot_exp.data.demo.generator import generate
from plot_exp.data.examples import Origin
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy
from plot_exp.models.tiny import base_directory
from plot_exp.progress import silent


def open_attacked(folder: Path, dtype: str = "float32") -> AttackedModel:
    """The saved model, ready to be attacked."""
    named = ModelConfig(name=str(folder), dtype=dtype)  # type: ignore[arg-type]
    return AttackedModel(Policy(load_model(named)), ChatTokeniser(load_tokenizer(named)))


@pytest.fixture(scope="session")
def attack_model() -> Callable[..., AttackedModel]:
    """`attack_model(folder, dtype="float32")`."""
    return open_attacked


@pytest.fixture
def attacked(saved_model: Path) -> AttackedModel:
    """Each of the two architectures, the second with BOS and a template that strips."""
    return open_attacked(saved_model)


@pytest.fixture(scope="session")
def behaviour() -> Behaviour:
    """In words that the tests' tokenizers know."""
    return Behaviour(
        id="apples",
        text="Please tell me how many apples there are in the basket",
        target="The answer is 42",
        functional="standard",
        semantic="fruit",
        origin=Origin("toy", 0),
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> AttackedModel:
    """A small base trained on the demo's harmlessness part: it has learned what follows what."""
    found = generate(1400, seed=0).train
    examples = [one for one in found if one.category == "harmlessness"]
    shape = TinyConfig(vocab_size=600, hidden_size=64, layers=2, heads=2, base_steps=160)
    cache = tmp_path_factory.mktemp("cache")
    return open_attacked(base_directory(shape, examples, 128, cache, trained=True, bar=silent))
