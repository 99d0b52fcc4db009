"""MATH (arXiv 2103.03874), its 500-problem selection, and their copies on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import hub
from plot_exp.data.examples import Message, PreferenceExample, Split
from plot_exp.data.files import Row
from plot_exp.data.layout import Part, check_parts, find_root, folder_parts, subfolders
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.sources.pipeline import finish
from plot_exp.data.sources.settings import check_rejected, check_subset
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError
from plot_exp.judges.answers import last_boxed

HUB_NAME = "EleutherAI/hendrycks_math"
SUBSETS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
FOLDER = "MATH"

NO_BOX = r"the solution has no balanced \boxed{} answer"


def check(config: DatasetConfig) -> None:
    """See `sources.check`."""
    check_rejected(config, ("corrupt", "sampled", "none", "given"), "it holds solutions only")
    check_subset(config, SUBSETS, HUB_NAME)
    root = find_root(config, FOLDER, HUB_NAME)
    if root is not None:
        check_parts(parts(root))


def read(
    config: DatasetConfig,
    tallies: list[Tally],
    *,
    cache_dir: Path,
    draw: Draw | None = None,
    model_identity: str | None = None,
) -> Split:
    """See `sources.read`; the category of an example is its subject."""
    check(config)
    tally = Tally(config.name)
    tallies.append(tally)
    groups: dict[str, list[PreferenceExample]] = {}
    for split, rows in row_groups(config):
        for example in _examples(rows, tally):
            if config.subset in (None, example.category):
                groups.setdefault(split, []).append(example)
    return finish(
        [groups], config, tally, cache_dir=cache_dir, draw=draw, model_identity=model_identity
    )


def row_groups(config: DatasetConfig) -> Iterator[tuple[str, Iterable[Row]]]:
    """The published rows of each split: `train`, `validation` (the test split), or `all`.

    Raises:
        UserError: neither the folder nor the hub has them.
    """
    root = find_root(config, FOLDER, HUB_NAME)
    if root is not None:
        for part in parts(root):
            yield part.split, part.rows()
        return
    name = config.hub_name or HUB_NAME
    if name != HUB_NAME:
        yield from hub.load(name).items()
        return
    for subject in [config.subset] if config.subset else SUBSETS:
        yield from hub.load(name, config=subject).items()


def parts(root: Path) -> list[Part]:
    """The files below `root`.

    It may be one file (MATH-500), a folder with split files, a subject's folder of N.json files, a
    folder of subjects, one of splits (train, test) of subjects, or the folder that holds MATH.

    Raises:
        UserError: nothing of that layout is there.
    """
    if root.is_file():
        return [Part("all", (root,))]
    for folder in (root, root / FOLDER):
        if found := folder_parts(folder) or _split_folders(folder) or _subjects(folder, "all"):
            return found
        if files := _numbered(folder):
            return [Part("all", files)]
    raise UserError(
        f"{root} holds no MATH data; expected SUBJECT/N.json in it or in its folders train and "
        "test, or a file such as test.jsonl."
    )


def _split_folders(folder: Path) -> list[Part]:
    names = {"train": "train", "test": "validation"}
    found = {split: _subjects(folder / name, split) for name, split in names.items()}
    found = {split: subjects for split, subjects in found.items() if subjects}
    if len(found) == 1:
        return [Part("all", part.files, part.group) for part in next(iter(found.values()))]
    return [part for subjects in found.values() for part in subjects]


def _subjects(folder: Path, split: str) -> list[Part]:
    """Folders of N.json files, or of the hub's Parquet files."""
    if not folder.is_dir():
        return []
    found = []
    for subject in subfolders(folder):
        if files := _numbered(subject):
            found.append(Part(split, files, subject.name))
        elif split == "all":
            found.extend(folder_parts(subject, subject.name))
    return found


def _numbered(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    files = [file for file in folder.glob("*.json") if file.stem.isdecimal()]
    return tuple(sorted(files, key=lambda file: int(file.stem)))


def subject_of(row: Row) -> str:
    """The subject in the form of the published folders, such as `counting_and_probability`."""
    name = row.values.get("type") or row.values.get("subject")
    if not isinstance(name, str):
        name = Path(row.file).parent.name
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("&", "and")).strip("_")


def _examples(rows: Iterable[Row], tally: Tally) -> Iterator[PreferenceExample]:
    for row in rows:
        for key in ("problem", "solution"):
            if not isinstance(row.values.get(key), str):
                raise UserError(
                    f"{row} has no text under `{key}` (its keys: {', '.join(row.values)}); MATH "
                    "rows hold `problem` and `solution`."
                )
        solution = row.values["solution"].strip()
        answer = last_boxed(solution)
        if not answer:
            tally.drop(NO_BOX, row.origin)
            continue
        yield PreferenceExample(
            prompt=(Message("user", row.values["problem"].strip()),),
            responses=(solution,),
            category=subject_of(row),
            dataset="math",
            origin=row.origin,
            answer=answer,
        )
