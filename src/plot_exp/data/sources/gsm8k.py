"""GSM8K (arXiv 2110.14168): school mathematics with worked solutions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import hub
from plot_exp.data.examples import Message, Origin, PreferenceExample, Split
from plot_exp.data.files import Row
from plot_exp.data.layout import Part, check_parts, find_root, folder_parts
from plot_exp.data.rejected.calculator import without_notes
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.sources.pipeline import finish
from plot_exp.data.sources.settings import check_rejected, check_subset
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError
from plot_exp.judges.answers import extract_strict

HUB_NAME = "openai/gsm8k"
SUBSETS = ("main", "socratic")
FOLDER = "gsm8k"
CATEGORY = "mathematics"

NO_ANSWER = "the solution has no number behind ####"
NO_REASONING = "the solution has no reasoning before ####"

_FINAL_LINE = re.compile(r"\n?####[^\n]*\s*\Z")


def check(config: DatasetConfig) -> None:
    """See `sources.check`."""
    check_rejected(config, ("corrupt", "sampled", "none", "given"), "it holds solutions only")
    check_subset(config, SUBSETS, HUB_NAME)
    root = find_root(config, FOLDER, HUB_NAME)
    if root is not None:
        check_parts(parts(root, config))


def read(
    config: DatasetConfig,
    tallies: list[Tally],
    *,
    cache_dir: Path,
    draw: Draw | None = None,
    model_identity: str | None = None,
) -> Split:
    """See `sources.read`; responses are the solutions without their calculator notes."""
    check(config)
    tally = Tally(config.name)
    tallies.append(tally)
    worked: dict[Origin, str] = {}
    groups = {split: list(_examples(rows, worked, tally)) for split, rows in row_groups(config)}
    return finish(
        [groups],
        config,
        tally,
        cache_dir=cache_dir,
        draw=draw,
        model_identity=model_identity,
        worked=worked,
    )


def row_groups(config: DatasetConfig) -> Iterator[tuple[str, Iterable[Row]]]:
    """The published rows of each split: `train`, `validation` (the test split), or `all`.

    Raises:
        UserError: neither the folder nor the hub has them.
    """
    root = find_root(config, FOLDER, HUB_NAME)
    if root is None:
        name = config.hub_name or HUB_NAME
        yield from hub.load(name, config=config.subset or SUBSETS[0]).items()
        return
    for part in parts(root, config):
        yield part.split, part.rows()


def parts(root: Path, config: DatasetConfig) -> list[Part]:
    """The files below `root`: one file, a folder of splits, or a copy of the hub or GitHub layout.

    Raises:
        UserError: nothing of that layout is there.
    """
    if root.is_file():
        return [Part("all", (root,))]
    subset = config.subset or SUBSETS[0]
    for folder in (root, root / subset, root / "grade_school_math" / "data"):
        if found := folder_parts(folder):
            return found
    raise UserError(
        f"{root} holds no GSM8K data; expected train.jsonl and test.jsonl in it, or "
        f"{subset}/train-00000-of-00001.parquet."
    )


def _examples(
    rows: Iterable[Row], worked: dict[Origin, str], tally: Tally
) -> Iterator[PreferenceExample]:
    for row in rows:
        for key in ("question", "answer"):
            if not isinstance(row.values.get(key), str):
                raise UserError(
                    f"{row} has no text under `{key}` (its keys: {', '.join(row.values)}); GSM8K "
                    "rows hold `question` and `answer`."
                )
        solution = row.values["answer"].strip()
        answer = extract_strict(solution)
        if answer is None:
            tally.drop(NO_ANSWER, row.origin)
            continue
        if not _FINAL_LINE.sub("", solution).strip():
            tally.drop(NO_REASONING, row.origin)
            continue
        worked[row.origin] = solution
        yield PreferenceExample(
            prompt=(Message("user", row.values["question"].strip()),),
            responses=(without_notes(solution),),
            category=CATEGORY,
            dataset="gsm8k",
            origin=row.origin,
            answer=answer,
        )
