"""One reader a dataset; each turns rows into `PreferenceExample`s and counts what it left out."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data.examples import Split
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.tally import Tally


def read(
    config: DatasetConfig,
    tallies: list[Tally],
    *,
    cache_dir: Path,
    draw: Draw | None = None,
    model_identity: str | None = None,
) -> Split:
    """Reads a dataset and splits it into training and validation.

    Args:
        config: the dataset's section.
        tallies: receives one tally for the dataset, or one for each source of a mix.
        cache_dir: where sampled rejections are kept.
        draw: gives responses of a model to prompts; needed where `needs_model(config)`.
        model_identity: what tells that model from others (a name and revision, or a hash of its
            weights), so that responses of another model are never taken from the cache.

    Raises:
        UserError: the data cannot be used; the message says which file, row and key.
    """
    if draw is not None and model_identity is None:
        raise ValueError("draw needs model_identity: without it the cache could mix up models")
    drawing = {} if draw is None else {"draw": draw, "model_identity": model_identity}
    split: Split = _module(config).read(config, tallies, cache_dir=cache_dir, **drawing)
    return split


def check(config: DatasetConfig) -> None:
    """Checks settings, paths and the start of the files before anything heavy is imported.

    Raises:
        UserError: a setting does not fit the dataset, or a file cannot be used.
    """
    checker = getattr(_module(config), "check", None)
    if checker is not None:
        checker(config)


def needs_model(config: DatasetConfig) -> bool:
    """Whether reading needs `draw`: rejected responses are sampled, here or in a mix's source."""
    if config.name == "mix":
        return any(needs_model(source) for source in (config.sources or {}).values())
    return config.rejected == "sampled"


def _module(config: DatasetConfig) -> ModuleType:
    return import_module(f"{__name__}.{config.name}")
