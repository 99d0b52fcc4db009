"""Several finished runs side by side."""

from __future__ import annotations

import os
from pathlib import Path

from plot_exp.errors import UserError
from plot_exp.files import write_text
from plot_exp.report import attacks
from plot_exp.report import contents as run_contents
from plot_exp.report.contents import Contents, flat
from plot_exp.report.markdown import escape, table
from plot_exp.report.measures import Estimate, Measure, measures
from plot_exp.report.study.write import Study
from plot_exp.report.study.write import write as write_study

# Folders of a run that hold no runs, though other tools keep a config.yaml there.
CLOSED = {".hydra", "wandb", "checkpoints", "model", "plots", "tables", "figures"}
# What differs between any two runs and explains nothing.
INCIDENTAL = (
    "name",
    "resume",
    "objective",
    "cache_dir",
    "output_dir",
    "logger",
    "trainer.progress",
)
ABSENT = "not measured"
# More columns than these are not read; the tables over seeds say it then.
MOST_SIDE_BY_SIDE = 6


def find(folder: Path) -> list[Path]:
    """Every run directory at or below `folder`, in the order of their paths.

    Raises:
        UserError: `folder` does not exist or holds no run.
    """
    if not folder.is_dir():
        raise UserError(f"runs={folder}: there is no such folder; name a run or a folder of runs.")
    runs = []
    for root, folders, _ in os.walk(folder):
        if run_contents.is_run(Path(root)):
            runs.append(Path(root))
            folders.clear()
        folders[:] = sorted(name for name in folders if name not in CLOSED)
    if not runs:
        raise UserError(
            f"runs={folder}: no run was found there; a run directory holds config.yaml beside "
            "environment.json or metrics.json."
        )
    return runs


def settings(runs: list[Contents]) -> list[list[str]]:
    """Settings that differ: a dotted key, then one value a run, unescaped."""
    leaves = [_leaves(run) for run in runs]
    keys = list(dict.fromkeys(key for one in leaves for key in one))
    return [
        [key, *(str(one.get(key, "–")) for one in leaves)]
        for key in keys
        if not any(key == name or key.startswith(f"{name}.") for name in INCIDENTAL)
        and len({str(one.get(key, "–")) for one in leaves}) > 1
        and not (key.startswith("loss.") and _agree(key, leaves))
    ]


def _agree(key: str, leaves: list[dict[str, object]]) -> bool:
    """Whether all runs that have the key agree: that others lack its term, `loss` says once."""
    return len({str(one[key]) for one in leaves if key in one}) < 2


def _leaves(run: Contents) -> dict[str, object]:
    """The settings by dotted key; `loss` names the terms, and a term's own come only beside it."""
    found = flat(run.config or {})
    terms = list((run.config or {}).get("loss") or {})
    return {"loss": "+".join(terms), **found}


def outcomes(runs: list[Contents], *, by_category: bool = False) -> list[list[str]]:
    """What was measured after training: a name, then one value a run, unescaped.

    Args:
        by_category: the measures of single sub-preferences in place of those over all cases.
    """
    found = [{(m.key, m.category): m for m in measures(run.metrics or {})} for run in runs]
    lines = []
    for key in dict.fromkeys(key for one in found for key in one):
        values = [one[key].after if key in one else None for one in found]
        measure = next(one[key] for one in found if key in one)
        if any(values) and measure.in_summary != by_category:
            lines.append([_label(measure), *(_value(value) for value in values)])
    return lines


def write(folder: Path, runs: list[Contents]) -> Study:
    """Writes `comparison.md` into `folder`, and what a study leaves beside it.

    Raises:
        RunError: the disk cannot be written.
    """
    study = write_study(folder, runs)
    parts = [f"# {len(runs)} runs side by side", study.markdown()]
    if len(runs) <= MOST_SIDE_BY_SIDE:
        parts += _side_by_side(folder, runs)
    unmeasured = [f"`{run.run_dir.name}`: {run.left_out('metrics.json')}" for run in runs]
    parts += [line for line, run in zip(unmeasured, runs, strict=True) if run.metrics is None]
    write_text(folder / "comparison.md", "\n\n".join(parts) + "\n")
    return study


def _side_by_side(folder: Path, runs: list[Contents]) -> list[str]:
    names = [escape(name_of(run.run_dir, folder)) for run in runs]
    parts = []
    if len(runs) > 1:
        differing = settings(runs)
        same = "None: these runs had the same settings."
        parts += ["## Settings that differ", _table("Setting", names, differing) or same]
    measured = _table("Measure", names, outcomes(runs))
    parts += ["## Single runs, after training", measured or "*Nothing was measured.*"]
    if by_category := _table("Measure", names, outcomes(runs, by_category=True)):
        parts += ["## Single runs, after training, by sub-preference", by_category]
    parts.append(attacks.compare(runs, names))
    parts.append(
        "Each column is one run; brackets are 95 % intervals over its cases, which say nothing of "
        "how seeds differ."
    )
    return [part for part in parts if part]


def name_of(run_dir: Path, folder: Path) -> str:
    """A run's name among the others: its path below `folder`."""
    below = run_dir.relative_to(folder).as_posix()
    return run_dir.resolve().name if below == "." else below


def _table(first: str, names: list[str], lines: list[list[str]]) -> str:
    if not lines:
        return ""
    escaped = [[escape(cell) for cell in line] for line in lines]
    return table([first, *names], escaped, len(names))


def _label(measure: Measure) -> str:
    return measure.label if measure.category is None else f"{measure.label}, {measure.category}"


def _value(estimate: Estimate | None) -> str:
    return ABSENT if estimate is None else str(estimate)
