"""The recipes for the published models are configurations that every rule lets through."""

from __future__ import annotations

import pytest

from plot_exp.config.choices import groups
from plot_exp.config.combinations import RULES
from plot_exp.config.composition import compose

RECIPES = [name for name in groups()["experiment"] if name.startswith("paper_")]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", ["llama3b", "llama8b", "qwen7b"])
def test_a_recipe_fits_every_published_model(recipe: str, model: str) -> None:
    config = compose([f"experiment={recipe}", f"model={model}"])

    assert [problem for rule in RULES for problem in rule(config)] == []
    assert config.name == recipe
    assert config.model.name != "tiny"
    assert config.dataset.name == "hh_rlhf"


def test_plot_can_be_added_to_every_recipe() -> None:
    for recipe in RECIPES:
        loss = "+".join(compose([f"experiment={recipe}"]).loss)
        if "plot" not in loss:
            added = compose([f"experiment={recipe}", f"loss={loss}+plot", "loss.plot.alpha=0.3"])
            assert added.loss["plot"].alpha == 0.3


@pytest.mark.parametrize("model", ["llama3b", "llama8b_base", "qwen7b"])
def test_an_adapter_is_trained_at_ten_times_the_rate(model: str) -> None:
    def rate(*more: str) -> float:
        return compose([f"model={model}", *more]).optimizer.lr

    assert rate("loss=dpo+plot") == 5e-7
    assert rate("loss=dpo+plot", "model.lora.rank=8") == 5e-6
    assert rate("loss=sft", "model.lora.rank=8") == 2e-4
    assert rate("loss=sft", "model.lora.rank=8", "optimizer.lr=1e-5") == 1e-5


def test_a_published_model_is_computed_in_what_its_device_is_good_at() -> None:
    assert compose(["model=qwen7b", "trainer=cpu"]).trainer.precision == "auto"
