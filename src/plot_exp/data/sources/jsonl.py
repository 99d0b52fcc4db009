"""The reader's own files, in the layouts that the ecosystem uses; see docs/data.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import hub
from plot_exp.data.examples import PreferenceExample, Split
from plot_exp.data.files import Row, has_known_suffix
from plot_exp.data.layout import Part, check_parts, find_root, folder_parts
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.sources.pipeline import finish
from plot_exp.data.sources.row_layouts import PromptsDifferError, to_example
from plot_exp.data.sources.settings import check_subset
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

EQUAL_SCORES = "some scores are equal (kept; those responses stay in the file's order)"


def check(config: DatasetConfig) -> None:
    """See `sources.check`."""
    if config.path is None:
        if config.hub_name is None:
            raise UserError(
                "dataset=jsonl needs dataset.path=FILE_OR_FOLDER, or dataset.hub_name=NAME."
            )
        return
    check_subset(config, (), config.path)
    check_parts(parts(_root(config)))


def read(
    config: DatasetConfig,
    tallies: list[Tally],
    *,
    cache_dir: Path,
    draw: Draw | None = None,
    model_identity: str | None = None,
) -> Split:
    """See `sources.read`."""
    check(config)
    tally = Tally(config.name)
    tallies.append(tally)
    groups = {split: list(_examples(rows, tally)) for split, rows in _row_groups(config)}
    return finish(
        [groups], config, tally, cache_dir=cache_dir, draw=draw, model_identity=model_identity
    )


def _root(config: DatasetConfig) -> Path:
    root = find_root(config, "", "")
    if root is None:
        raise UserError("dataset=jsonl needs dataset.path=FILE_OR_FOLDER.")
    return root


def _row_groups(config: DatasetConfig) -> Iterator[tuple[str, Iterable[Row]]]:
    if config.path is None:
        yield from hub.load(config.hub_name or "", config=config.subset).items()
        return
    for part in parts(_root(config)):
        yield part.split, part.rows()


def parts(root: Path) -> list[Part]:
    """One file; a folder with train and test (or validation) files; or a folder of any files.

    Raises:
        UserError: the folder holds no file of a known format.
    """
    if root.is_file():
        return [Part("all", (root,))]
    if found := folder_parts(root):
        return found
    files = tuple(sorted(file for file in root.iterdir() if has_known_suffix(file)))
    if not files:
        raise UserError(
            f"{root} holds no data; expected train.jsonl and test.jsonl, or any .jsonl, .json or "
            ".parquet files (plain or gzip)."
        )
    return [Part("all", files)]


def _examples(rows: Iterable[Row], tally: Tally) -> Iterator[PreferenceExample]:
    for row in rows:
        try:
            example = to_example(row)
        except PromptsDifferError as reason:
            tally.drop(str(reason), row.origin)
            continue
        if example.scores is not None and len(set(example.scores)) < len(example.scores):
            tally.change(EQUAL_SCORES, row.origin)
        yield example
