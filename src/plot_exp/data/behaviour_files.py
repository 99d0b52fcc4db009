"""HarmBench's and AdvBench's behaviour files in their published layouts."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plot_exp.data.examples import Origin
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError
from plot_exp.reading import read_json, read_text

HARMBENCH_COLUMNS = (
    "Behavior",
    "FunctionalCategory",
    "SemanticCategory",
    "Tags",
    "ContextString",
    "BehaviorID",
)
ADVBENCH_COLUMNS = ("goal", "target")
HARMBENCH_FILE = "harmbench_behaviors_text_{split}.csv"
HARMBENCH_TARGETS = "harmbench_targets_text.json"
ADVBENCH_FILE = "harmful_behaviors.csv"
_LFS_START = "version https://git-lfs"


@dataclass(frozen=True)
class Record:
    """A behaviour as its file gives it; see `behaviours.Behaviour`."""

    id: str
    text: str
    target: str
    functional: str
    semantic: str
    origin: Origin
    context: str = ""
    tags: tuple[str, ...] = ()


def harmbench(place: Path, split: str, tally: Tally) -> list[Record]:
    """HarmBench's text behaviours (arXiv 2402.04249) with their target strings.

    Args:
        place: the CSV file, or the folder with it; the targets' file stands beside it.

    Raises:
        UserError: a file is missing, or not in the published layout.
    """
    file = place / HARMBENCH_FILE.format(split=split) if place.is_dir() else place
    rows = list(_rows(file, HARMBENCH_COLUMNS))
    targets = _targets(file.parent / HARMBENCH_TARGETS)
    found: dict[str, Record] = {}
    for number, row in rows:
        origin = Origin(str(file), number)
        name, text = row["BehaviorID"].strip(), row["Behavior"]
        if not name or not text.strip():
            tally.drop("without a request or an id", origin)
        elif name in found:
            tally.drop("id that stood before", origin)
        elif not targets.get(name, "").strip():
            tally.drop("without a target string", origin)
        else:
            if text != text.strip():
                tally.change("blanks around the request taken away", origin)
            found[name] = Record(
                name,
                text.strip(),
                targets[name].strip(),
                row["FunctionalCategory"].strip() or "standard",
                row["SemanticCategory"].strip() or "other",
                origin,
                row["ContextString"].strip(),
                tuple(filter(None, (tag.strip() for tag in row["Tags"].split(",")))),
            )
    return list(found.values())


def advbench(place: Path, tally: Tally) -> list[Record]:
    """AdvBench's harmful behaviours (arXiv 2307.15043); it has no categories and no ids.

    Raises:
        UserError: the file is missing, or not in the published layout.
    """
    file = place / ADVBENCH_FILE if place.is_dir() else place
    found, seen = [], set()
    for number, row in _rows(file, ADVBENCH_COLUMNS):
        origin = Origin(str(file), number)
        text, target = row["goal"].strip(), row["target"].strip()
        if not text or not target:
            tally.drop("without a request or a target string", origin)
        elif text in seen:
            tally.drop("request that stood before", origin)
        else:
            seen.add(text)
            found.append(Record(f"advbench_{number}", text, target, "standard", "advbench", origin))
    return found


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(0-based number, fields) of each record; cells may hold line breaks."""
    text = read_text(file)
    if text.startswith(_LFS_START):
        raise UserError(f"{file} is a Git LFS pointer, not the data; run `git lfs pull` there.")
    reader = csv.DictReader(_lines(text))
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{file} has no column {', '.join(missing)}; expected {', '.join(columns)}."
        )
    count = 0
    try:
        for number, row in enumerate(reader):
            if any(row[name] is None for name in columns):
                raise UserError(f"{file}, row {number} is cut off; expected {len(columns)} fields.")
            count += 1
            yield number, {name: row[name] for name in columns}
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num} is no valid CSV: {error}.") from error
    if not count:
        raise UserError(f"{file} holds no behaviour.")


def _lines(text: str) -> Iterator[str]:
    """Physical lines at line feeds alone, their ends kept, as the csv module wants them."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start : end + 1]
        start = end + 1
    if start < len(text):
        yield text[start:]


def _targets(file: Path) -> dict[str, str]:
    if not file.is_file():
        raise UserError(
            f"{file} is not there; HarmBench publishes the target strings in it, and the attacks "
            "need them."
        )
    found = read_json(file)
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise UserError(f"{file}: expected an object from behaviour ids to target strings.")
    return found
