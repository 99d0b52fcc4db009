"""Every file of conf/ composes, and every combination of terms is a choice."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from pydantic import BaseModel

from plot_exp.config.choices import conf_dir, groups, summary
from plot_exp.config.composition import compose, composed, opened, point_folder, points, to_config
from plot_exp.config.keys import sections_of
from plot_exp.config.losses import TERMS, DPOConfig
from plot_exp.config.schema import Config, load
from plot_exp.errors import UserError

# Keys that a file of conf/ may leave out, and why.
NOT_IN_CONF = {
    "loss": "chosen by its group",
    "hydra": "Hydra's own",
    "tiny": "the shape of the embedded model, told by model/tiny.yaml",
    "sources": "of a mix",
}


@pytest.mark.parametrize(
    "choice",
    [f"{group}={option}" for group, options in groups().items() for option in options],
)
def test_every_file_composes(choice: str, tmp_path: Path) -> None:
    extra = {"model=hf": ["model.name=some/model"]}.get(choice, [])
    config = compose([choice, *extra])
    assert Config.model_validate(config.plain()) == config
    group, option = choice.split("=")
    assert summary(group, option), "the first comment says what the file chooses"


@pytest.mark.parametrize("length", [1, 2, 3])
def test_every_combination_of_terms_is_a_choice_in_the_order_written(length: int) -> None:
    combinations = list(itertools.permutations(TERMS, length))
    # Of three there are a thousand: a sample of them, the same each time.
    for terms in random.Random(length).sample(combinations, min(40, len(combinations))):
        assert list(compose([f"loss={'+'.join(terms)}"]).loss) == list(terms)


def test_each_term_keeps_its_settings_in_a_combination() -> None:
    config = compose(["loss=sft+plot", "loss.plot.alpha=0.3", "loss.sft.weight=2"])
    assert config.loss["plot"].alpha == config.loss["plot"].weight == 0.3
    assert config.loss["sft"].weight == 2.0


def test_an_experiment_file_chooses_a_loss(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /loss: sft+dpo\nloss: {dpo: {beta: 0.7}}\n"
    )
    with opened(str(tmp_path)) as hydra:
        config = to_config(composed(hydra, ["experiment=mine"]))
        assert config.loss["dpo"].beta == 0.7
        assert list(config.loss) == ["sft", "dpo"]
        with pytest.raises(UserError, match=r"loss\.dpo is set, but 'dpo' is not in loss=sft"):
            to_config(composed(hydra, ["experiment=mine", "loss=sft"]))


def test_a_sweep_over_losses_has_the_points_one_expects() -> None:
    with opened() as hydra:
        master = composed(hydra, ["loss=dpo,dpo+plot", "seed=0,1", "name=x"], multirun=True)
        own = [point[-3:] for point in points(master)]
        assert own == [
            [f"loss={loss}", f"seed={seed}", "name=x"]
            for loss in ("dpo", "dpo+plot")
            for seed in (0, 1)
        ]
        node = composed(hydra, own[2])
        HydraConfig.instance().set_config(node)
        assert OmegaConf.select(node, "hydra.sweep.dir") == "outputs/sweeps/x"
        assert OmegaConf.select(node, "hydra.sweep.subdir") == "loss=dpo+plot,seed=0"


def test_a_points_folder_is_one_name_and_distinct() -> None:
    slash, underscore = point_folder("dataset.path=a/b"), point_folder("dataset.path=a_b")
    assert "/" not in slash
    assert slash != underscore
    assert len(point_folder("x" * 500)) < 255
    assert len(point_folder("é" * 500).encode()) < 255
    assert not {"\n", "\0", "\\", "/"} & set(point_folder("a=\0\n..\\..//"))
    assert point_folder("..") not in ("..", ".")
    assert point_folder("x" * 500) != point_folder("x" * 501)


def test_two_runs_in_one_second_get_two_folders() -> None:
    with opened() as hydra:
        folders = set()
        for _ in range(2):
            node = composed(hydra, [])
            HydraConfig.instance().set_config(node)
            folders.add(OmegaConf.select(node, "hydra.run.dir"))
            OmegaConf.clear_cache(node)
    assert len(folders) == 2


def _missing_keys(model: type[BaseModel], content: object, prefix: str = "") -> list[str]:
    assert isinstance(content, dict)
    missing = []
    for name, field in model.model_fields.items():
        if name in NOT_IN_CONF:
            continue
        if name not in content:
            missing.append(prefix + name)
            continue
        section, mapping = sections_of(field.annotation)
        # A part that was not chosen, such as a benchmark, shows its name alone.
        if section and not mapping and content[name] is not None:
            missing += _missing_keys(section, content[name], f"{prefix}{name}.")
    return missing


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={option}"
        for group in ("dataset", "trainer", "model", "eval", "logger")
        for option in groups()[group]
    ],
)
def test_conf_shows_every_key_of_the_schema(choice: str) -> None:
    with opened() as hydra:
        node = composed(hydra, [choice])
        content = OmegaConf.to_container(OmegaConf.masked_copy(node, list(Config.model_fields)))
    assert _missing_keys(Config, content) == []


@pytest.mark.parametrize("term", TERMS)
def test_a_terms_file_shows_every_setting_at_its_default(term: str) -> None:
    node = OmegaConf.load(conf_dir() / f"loss/{term}.yaml")
    content = OmegaConf.to_container(node, resolve=True)
    assert content == {term: TERMS[term]().model_dump()}


def test_a_models_recipe_fills_the_terms_in_use_and_gives_way_to_an_override() -> None:
    recipe = OmegaConf.load(conf_dir() / "model/tiny.yaml").recipe
    assert compose().loss["dpo"].beta == recipe.dpo.beta != DPOConfig().beta
    assert compose(["loss.dpo.beta=0.7"]).loss["dpo"].beta == 0.7
    assert compose(["model=qwen7b"]).loss["dpo"].beta == DPOConfig().beta
    assert set(compose(["loss=sft"]).loss) == {"sft"}


@pytest.mark.parametrize(
    ("loss", "lr"),
    [("dpo", 5e-7), ("simpo+plot", 1e-6), ("plot+orpo", 8e-6), ("dpo+sft", 5e-7), ("plot", 5e-7)],
)
def test_a_models_recipe_has_the_learning_rate_of_the_first_main_term(loss: str, lr: float) -> None:
    config = compose(["model=llama3b", f"loss={loss}"])
    assert config.optimizer.lr == lr
    assert Config.model_validate(config.plain()) == config


def test_a_config_file_round_trips(tmp_path: Path) -> None:
    config = compose(["dataset=mix", "loss=sft+plot", "optimizer.lr=3e-7"])
    file = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create(config.plain()), file)
    assert load(file) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [", "is not a configuration"),
        ("seed: -1\nloss: {dpo: {}}\ncache_dir: x", r"config\.yaml: seed=-1: must be 0 or more"),
        ("loss: {dop: {}}\ncache_dir: x", "did you mean 'dpo'"),
        ("3", "section"),
    ],
)
def test_a_damaged_config_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "config.yaml")


def test_a_presets_recipe_yields_to_the_command_line() -> None:
    preset = compose(["model=qwen7b"])
    assert (preset.model.name, preset.optimizer.lr) == ("Qwen/Qwen2.5-7B-Instruct", 5e-7)
    assert (preset.trainer.accelerator, preset.dataset.max_length) == ("gpu", 1024)
    own = compose(["model=qwen7b", "optimizer.lr=1e-6", "trainer=cpu", "dataset=hh_rlhf"])
    assert (own.optimizer.lr, own.trainer.accelerator) == (1e-6, "cpu")
