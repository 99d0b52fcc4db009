"""Runs a named study and keeps its result beside its question.

    python experiments/study.py NAME [--size SIZE] [OVERRIDES]

The sweep fills in what is missing in outputs/sweeps/NAME, so that a second call only writes the
result anew: experiments/NAME/result.md with its tables as CSV and its figures. Nothing is written
where a point failed or is missing, or over the result of another command.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import OmegaConf

from plot_exp.config.composition import composed, opened, points
from plot_exp.errors import RunError, UserError
from plot_exp.files import write_text
from plot_exp.report import compare, contents
from plot_exp.report.study import published
from plot_exp.report.study.tables import StudyTable
from plot_exp.report.study.write import FIGURES, Study

HERE = Path(__file__).parent
RESULT = "result.md"
# How points are launched and logged, and where, changes no result.
ELSEWHERE = ("hydra", "logger", "output_dir=", "cache_dir=", "trainer.progress=")
KEPT_FIGURES = (
    "comparison",
    "sensitivity",
    "data_efficiency",
    "attack_curves",
    "flows_1.",
    "flows_2.",
)


def main() -> int:
    """Runs the sweep, compares its runs and copies what is kept.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a value of sweep=")
    parser.add_argument("--size", help="a value of size=, where it is not the study's own")
    parser.add_argument("--output-dir", help="the same as output_dir=")
    parser.add_argument("--into", type=Path, help="where the result goes: experiments/NAME")
    parser.add_argument("--no-run", action="store_true", help="only compare what is there")
    parser.add_argument("--unfinished", action="store_true", help="though points are missing")
    arguments, overrides = parser.parse_known_args()
    overrides = [text for text in overrides if text != "--"]
    if arguments.output_dir:
        overrides.append(f"output_dir={arguments.output_dir}")
    try:
        plan = planned(arguments.name, arguments.size, overrides)
        target = arguments.into or HERE / arguments.name
        refuse_another(target / RESULT, plan.command)
        if not arguments.no_run:
            code = subprocess.run(
                [sys.executable, "-m", "plot_exp", "-m", *plan.given], check=False
            ).returncode
            if code:
                print("The sweep is not whole, so nothing was written.", file=sys.stderr)
                return code
        if not plan.folder.is_dir():
            raise UserError(f"{plan.folder}: nothing has run there yet; leave --no-run out")
        runs = [contents.read(run) for run in compare.find(plan.folder)]
        finished = sum(run.metrics is not None for run in runs)
        if finished < plan.points and not arguments.unfinished:
            raise UserError(
                f"{plan.folder} holds {finished} of the {plan.points} points of this study; run "
                "it without --no-run, or write what there is with --unfinished"
            )
        keep(compare.write(plan.folder, runs), plan.folder, target, plan.command)
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


@dataclass(frozen=True)
class Plan:
    """A sweep as the command line describes it.

    Attributes:
        given: its overrides.
        command: what to type for the same numbers.
        folder: where its runs stand.
        points: how many there are.
    """

    given: list[str]
    command: str
    folder: Path
    points: int


def planned(name: str, size: str | None, overrides: list[str]) -> Plan:
    """What the sweep is, without running it.

    Raises:
        UserError: there is no such sweep, or an override cannot be used.
    """
    given = [f"sweep={name}", *([f"size={size}"] if size else []), *overrides]
    with opened() as hydra:
        master = composed(hydra, [*given, "hydra.mode=MULTIRUN"], multirun=True)
        folder = Path(str(OmegaConf.select(master, "hydra.sweep.dir")))
        size = master.hydra.runtime.choices.size
        count = len(points(master))
    named = [f"sweep={name}", f"size={size}"]
    telling = [text for text in overrides if not text.startswith(ELSEWHERE)]
    flag = ["-m"] if telling else []
    command = shlex.join(["python", "-m", "plot_exp", *flag, *named, *telling])
    return Plan(given, command, folder, count)


def refuse_another(result: Path, command: str) -> None:
    """A kept result is of one command; a trial of another one does not take its place.

    Raises:
        UserError: the result is of another command.
    """
    if not result.is_file():
        return
    kept = re.search(r"from the runs of `(.*)`", result.read_text(encoding="utf-8"))
    if kept is not None and kept[1] != command:
        raise UserError(
            f"{result} is the result of `{kept[1]}`, not of `{command}`; "
            "--into FOLDER writes this one elsewhere"
        )


def keep(study: Study, folder: Path, target: Path, command: str) -> None:
    """Copies the tables and figures of a study, and writes result.md."""
    target.mkdir(parents=True, exist_ok=True)
    tables = [kept for table in study.tables if (kept := _measured(table)).rows]
    for table in tables:
        write_text(target / f"{table.name}.csv", table.csv())
    pictures = [p for p in study.pictures if p.file.startswith(KEPT_FIGURES)]
    for picture in pictures:
        shutil.copy(folder / FIGURES / picture.file, target / picture.file)
    parts = [
        "# Result",
        f"Written by `experiments/study.py` from the runs of `{command}`.",
        *study.lead,
        *(f"![{p.caption}]({p.file})\n\n*{p.caption}.*" for p in pictures),
        *(table.markdown() for table in tables),
    ]
    write_text(target / RESULT, "\n\n".join(parts) + "\n")
    print(f"{target / RESULT}")


def _measured(table: StudyTable) -> StudyTable:
    """Of published figures those that the study measured too."""
    if table.name != published.NAME:
        return table
    own = table.header.index(published.OWN)
    return replace(table, rows=[row for row in table.rows if row[own].numbers])


if __name__ == "__main__":
    sys.exit(main())
