"""Where a dataset's files lie: the folder that holds them, and which file is which split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data.files import SUFFIXES, Row, check_file, rows
from plot_exp.errors import UserError

DATA_VARIABLE = "PLOT_EXP_DATA"

_SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev", "eval", "test"),
}


@dataclass(frozen=True)
class Part:
    """Some files that belong together.

    Attributes:
        split: `train` or `validation`, or `all` where the layout does not say.
        files: in reading order.
        group: the subset or subject that the layout gives, or an empty string.
    """

    split: str
    files: tuple[Path, ...]
    group: str = ""

    def rows(self) -> Iterator[Row]:
        """All records, file by file."""
        for file in self.files:
            yield from rows(file)


def find_root(config: DatasetConfig, default_folder: str, published: str) -> Path | None:
    """`config.path`, or the folder under `PLOT_EXP_DATA`; None means the hub.

    The folder under `PLOT_EXP_DATA` holds the published data, so that it does not stand in where
    `config.hub_name` asks for another dataset than `published`.

    Raises:
        UserError: `config.path` does not exist, or is a device or the like.
    """
    if config.path is not None:
        path = Path(config.path).expanduser()
        try:
            path.stat()
        except FileNotFoundError as error:
            raise UserError(
                f"dataset.path={config.path} does not exist{_nearest(path)}."
            ) from error
        except OSError as error:
            raise UserError(
                f"dataset.path={config.path} cannot be read: {error.strerror or error}."
            ) from error
        if not (path.is_file() or path.is_dir()):
            raise UserError(f"dataset.path={config.path} is neither a file nor a directory.")
        return path
    data = os.environ.get(DATA_VARIABLE)
    if data and config.hub_name in (None, published):
        folder = Path(data).expanduser() / default_folder
        if folder.is_dir():
            return folder
    return None


def _nearest(path: Path) -> str:
    existing = next((parent for parent in path.parents if parent.is_dir()), None)
    return f"; the nearest folder that does is {existing}" if existing else ""


def split_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each split: `train.jsonl[.gz]`, `test.json`, `train-00000-of-00001.parquet`.

    Where one split is there in several formats, the first of `files.SUFFIXES` is taken; of
    `validation` and `test`, the validation file.
    """
    found = {}
    for split, names in _SPLIT_NAMES.items():
        for name in names:
            if files := _split_candidates(folder, name):
                found[split] = files
                break
    return found


def _split_candidates(folder: Path, name: str) -> tuple[Path, ...]:
    for suffix in SUFFIXES:
        if (file := folder / f"{name}{suffix}").is_file():
            return (file,)
    return tuple(sorted(folder.glob(f"{name}-*.parquet")))


def folder_parts(folder: Path, group: str = "") -> list[Part]:
    """One part for each split in the folder; `all` where only one split is there."""
    found = split_files(folder)
    if len(found) == 1:
        return [Part("all", files, group) for files in found.values()]
    return [Part(split, files, group) for split, files in found.items()]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, hidden ones left out.

    Raises:
        UserError: the folder cannot be listed.
    """
    try:
        return sorted(
            entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror or error}.") from error


def check_parts(parts: list[Part]) -> None:
    """Looks at the start of every file and the first record of each part.

    Raises:
        UserError: see `files.check_file` and `files.rows`.
    """
    for part in parts:
        for file in part.files:
            check_file(file)
        next(rows(part.files[0]))
