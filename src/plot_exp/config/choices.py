"""Where `conf/` is, what each of its groups offers, and `loss=a+b` out of the terms' files."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from plot_exp.config.losses import TERMS, parse_terms


def conf_dir() -> Path:
    """`conf/` inside the installed package, or at the root of the repository."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"conf/ is neither in {package} nor in {package.parents[1]}")


def groups(*extra_dirs: Path) -> dict[str, list[str]]:
    """Each group of `conf/`, and of further such folders, with its options in order."""
    found: dict[str, set[str]] = {}
    for file in chain(*(folder.glob("*/*.yaml") for folder in (conf_dir(), *extra_dirs))):
        found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def summary(group: str, option: str) -> str:
    """The first comment of an option's file, without its marks."""
    text = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")
    comments = (line for line in text.splitlines() if line.startswith("#"))
    return next((c.lstrip("# ") for c in comments if not c.startswith("# @")), "")


class ChoicesSource(FileConfigSource):
    """The folder `conf/`, where `loss/a+b` stands for the files of both terms.

    A registered term has no file there; its settings' defaults stand in for one.

    Hydra loads it like any file, so `loss=a+b` is an ordinary choice: on the command line, in a
    sweep, in an experiment's defaults list and in `hydra.job.override_dirname`.
    """

    @staticmethod
    def scheme() -> str:
        """The scheme of the search path's entry."""
        return "choices"

    def is_config(self, config_path: str) -> bool:
        """Whether a file of this name, or of every term that it names, exists."""
        parts = _terms(config_path)
        if not parts:
            return bool(super().is_config(config_path))
        return all(part in TERMS or self._has_file(part) for part in parts)

    def load_config(self, config_path: str) -> ConfigResult:
        """The file, or the terms' files one after another."""
        parts = _terms(config_path)
        if not parts:
            return super().load_config(config_path)
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.merge(*map(self._settings, parts)),
            header={"package": None},
        )

    def _has_file(self, term: str) -> bool:
        return bool(super().is_config(f"loss/{term}"))

    def _settings(self, term: str) -> Any:
        if self._has_file(term):
            return super().load_config(f"loss/{term}").config
        return OmegaConf.create({term: TERMS[term]().model_dump(mode="json")})


def _terms(config_path: str) -> list[str]:
    """The terms that an option of the group `loss` names; empty for another group's."""
    group, _, name = config_path.removesuffix(".yaml").rpartition("/")
    return parse_terms(name) if group == "loss" else []
