"""Runs a named study and keeps its result beside its question.

    python experiments/study.py NAME [--size demo] [OVERRIDES]

The sweep fills in what is missing in outputs/sweeps/NAME, so that a second call only writes the
result anew: experiments/NAME/result.md with its tables as CSV and its figures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from plot_exp.config.composition import sweep_folder
from plot_exp.files import write_text
from plot_exp.report import compare, contents
from plot_exp.report.study import published
from plot_exp.report.study.tables import StudyTable
from plot_exp.report.study.write import FIGURES, Study

HERE = Path(__file__).parent
KEPT_FIGURES = (
    "comparison",
    "sensitivity",
    "data_efficiency",
    "attack_curves",
    "flows_1.",
    "flows_2.",
)


def main() -> None:
    """Runs the sweep, compares its runs and copies what is kept."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a value of sweep=")
    parser.add_argument("--size", default="demo")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"))
    parser.add_argument("--no-run", action="store_true", help="only compare what is there")
    arguments, overrides = parser.parse_known_args()
    overrides = [text for text in overrides if text != "--"]
    given = [f"sweep={arguments.name}", f"size={arguments.size}", *overrides]
    # How points are launched and logged changes no result.
    shown = [text for text in given if not text.startswith(("hydra", "logger"))]
    command = ["python", "-m", "plot_exp", *shown]
    folder = arguments.output_dir / "sweeps" / sweep_folder(arguments.name, arguments.size)
    if not arguments.no_run:
        given.append(f"output_dir={arguments.output_dir}")
        subprocess.run([sys.executable, "-m", "plot_exp", *given], check=False)
    study = compare.write(folder, [contents.read(run) for run in compare.find(folder)])
    keep(study, folder, HERE / arguments.name, " ".join(command))


def keep(study: Study, folder: Path, target: Path, command: str) -> None:
    """Copies the tables and figures of a study, and writes result.md."""
    target.mkdir(exist_ok=True)
    tables = [kept for table in study.tables if (kept := _measured(table)).rows]
    for table in tables:
        write_text(target / f"{table.name}.csv", table.csv())
    pictures = [p for p in study.pictures if p.file.startswith(KEPT_FIGURES)]
    for picture in pictures:
        shutil.copy(folder / FIGURES / picture.file, target / picture.file)
    parts = [
        "# Result",
        f"Written by `python experiments/study.py {target.name}`, from the runs of `{command}`.",
        *study.lead,
        *(f"![{p.caption}]({p.file})\n\n*{p.caption}.*" for p in pictures),
        *(table.markdown() for table in tables),
    ]
    (target / "result.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"{target / 'result.md'}")


def _measured(table: StudyTable) -> StudyTable:
    """Of published figures those that the study measured too."""
    if table.name != published.NAME:
        return table
    own = table.header.index(published.OWN)
    return replace(table, rows=[row for row in table.rows if row[own].numbers])


if __name__ == "__main__":
    main()
