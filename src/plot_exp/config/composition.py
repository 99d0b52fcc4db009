"""From overrides to a checked `Config`: Hydra composes, the schema and the rules judge."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import version
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plot_exp.config.choices import ChoicesSource, conf_dir, groups
from plot_exp.config.grids import grid_points
from plot_exp.config.losses import TERMS, parse_terms
from plot_exp.config.overrides import check_overrides, explain_failure, load_extensions
from plot_exp.config.problems import validated
from plot_exp.config.schema import Config
from plot_exp.errors import UserError

CONFIG_NAME = "config"
LONGEST_FOLDER = 150


def point_folder(override_dirname: str) -> str:
    """The folder of a sweep's point: its overrides, as one name that any file system takes."""
    name = re.sub(r"[/\\\x00-\x1f\x7f]", "_", override_dirname) or "defaults"
    data = name.encode("utf-8", "replace")
    if name == override_dirname and len(data) <= LONGEST_FOLDER and name.strip(". "):
        return name
    digest = hashlib.sha256(override_dirname.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{data[:LONGEST_FOLDER].decode('utf-8', 'ignore')}-{digest}"


def sweep_folder(name: str, size: str | None) -> str:
    """The folder of a sweep: its name, and its size where that is not the demo's."""
    return name if size in (None, "demo") else f"{name}-{size}"


def recipe_lr(otherwise: float, *, _root_: DictConfig) -> float:
    """The model's learning rate for the loss's first term that is trained for itself.

    An adapter takes `recipe.adapter_lr` times as much.
    """
    terms = [str(term) for term in _root_.get("loss") or {}]
    plain = [term for term in terms if term in TERMS and not TERMS[term].auxiliary]
    known = OmegaConf.select(_root_, "recipe.lr") or {}
    rate = float(known.get((plain or terms or [""])[0], otherwise))
    if OmegaConf.select(_root_, "model.lora.rank") is None:
        return rate
    return float(f"{rate * float(OmegaConf.select(_root_, 'recipe.adapter_lr') or 1.0):.6g}")


def with_adapter(yes: str, no: str, *, _root_: DictConfig) -> str:
    """One of two values, by whether an adapter is trained beside frozen weights."""
    return no if OmegaConf.select(_root_, "model.lora.rank") is None else yes


# At import, so that a launcher's worker process has them too.
OmegaConf.register_new_resolver("point_folder", point_folder, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
OmegaConf.register_new_resolver("recipe_lr", recipe_lr, replace=True)
OmegaConf.register_new_resolver("with_adapter", with_adapter, replace=True)


@contextmanager
def opened(extra_dir: str | None = None) -> Iterator[Hydra]:
    """Hydra with `conf/` as its primary folder.

    Args:
        extra_dir: a folder whose groups and options come before those of `conf/`.
    """
    Plugins.instance().register(ChoicesSource)
    version.setbase("1.3")
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    if extra_dir is not None:
        if not Path(extra_dir).is_dir():
            raise UserError(f"--config-dir {extra_dir}: there is no such directory")
        path.append("command-line", f"file://{Path(extra_dir).absolute()}")
    path.append("main", f"choices://{conf_dir()}")
    path.append("schema", "structured://")
    previous = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2("plot_exp", path)
    finally:
        GlobalHydra.instance().clear()
        if previous is not None:
            GlobalHydra.instance().initialize(previous)


def composed(hydra: Hydra, overrides: Sequence[str], multirun: bool = False) -> DictConfig:
    """What the overrides make of `conf/`, Hydra's own node included.

    Raises:
        UserError: an override cannot be read, or names what does not exist.
    """
    sources = hydra.config_loader.get_sources()
    extra_dirs = [Path(source.path) for source in sources if source.scheme() == "file"]
    load_extensions(overrides)
    check_overrides(overrides, groups(*extra_dirs), sweep=multirun)
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    try:
        return hydra.compose_config(
            CONFIG_NAME, list(overrides), run_mode=mode, with_log_configuration=False
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain_failure(error)) from error


def to_config(node: DictConfig, loss_choice: str | None = None) -> Config:
    """The checked configuration of a composed node.

    Args:
        loss_choice: the chosen `loss`, where `node` no longer holds Hydra's own node.

    Raises:
        UserError: a value that the schema refuses, or a setting of a term that was not chosen.
    """
    try:
        own = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
        content = cast(dict[str, Any], OmegaConf.to_container(own, resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(explain_failure(error)) from error
    # The settings of the terms have read the model's recipe; it is none of a run's own.
    content.pop("recipe", None)
    choice = node.hydra.runtime.choices.get("loss") if "hydra" in node else loss_choice
    for term in content.get("loss") or {}:
        if choice and term not in parse_terms(choice):
            raise UserError(
                f"loss.{term} is set, but {term!r} is not in loss={choice}; "
                f"write loss={choice}+{term}, or leave loss.{term} out"
            )
    return validated(Config, content)


def compose(overrides: Sequence[str] = ()) -> Config:
    """The configuration of one run, as `python -m plot_exp OVERRIDES` would see it.

    Raises:
        UserError: see `composed` and `to_config`.
    """
    with opened() as hydra:
        return to_config(composed(hydra, overrides))


def points(master: DictConfig) -> list[list[str]]:
    """The overrides of every point of a sweep; empty where the sweeper chooses as it goes."""
    sweeper = master.hydra.sweeper
    kind = str(sweeper.get("_target_", "")).rpartition(".")[2]
    params = dict(sweeper.get("params") or {})
    parser = OverridesParser.create()
    task = parser.parse_overrides(list(master.hydra.overrides.task))
    if kind == "GridSweeper":
        found = grid_points(params, sweeper.get("grids") or {}, task)
    elif kind == "BasicSweeper":
        found = grid_points(params, {}, task)
    else:
        return []
    return [[*master.hydra.overrides.hydra, *point] for point in found]
