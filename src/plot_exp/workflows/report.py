"""`task=report`: the reports of finished runs, written anew, and the runs side by side."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.report import compare, contents
from plot_exp.report import run as run_report
from plot_exp.report.study import published
from plot_exp.report.study.tables import StudyTable

TERMINAL_COLUMNS = 5


def run(config: Config, run_dir: Path) -> None:
    """Rewrites `report.md` of each run at or below `config.runs`, and the comparison there.

    Args:
        config: `runs` is one run directory or a folder of them.
        run_dir: not used: what is written stands beside the runs.

    Raises:
        UserError: `runs` is not given, does not exist, or holds no run.
        RunError: the disk cannot be written.
    """
    if config.runs is None:
        raise UserError("task=report needs runs=FOLDER, a run directory or a folder of runs.")
    folder = Path(config.runs)
    found = compare.find(folder)
    for one in found:
        run_report.write(one)
    read = [contents.read(one) for one in found]
    study = compare.write(folder, read)
    console = Console()
    if len(read) <= compare.MOST_SIDE_BY_SIDE:
        console.print(_side_by_side(folder, read))
    else:
        for table in study.tables:
            if table.name != published.NAME:  # sentences, which narrow columns make a page long
                console.print(_over_seeds(table))
    for sentence in study.lead:
        console.print(Text(sentence))
    console.print(
        Text(f"Look first at {folder / 'comparison.html'} or {folder / 'comparison.md'}"),
        soft_wrap=True,
    )


def _side_by_side(folder: Path, runs: list[contents.Contents]) -> Table:
    table = Table(title=f"{len(runs)} runs side by side", title_justify="left")
    table.add_column("", overflow="fold")
    for one in runs:
        table.add_column(Text(compare.name_of(one.run_dir, folder)), justify="right")
    for lines in (compare.settings(runs), compare.outcomes(runs)):
        for line in lines:
            table.add_row(*map(Text, line))
        table.add_section()
    return table


def _over_seeds(table: StudyTable) -> Table:
    """The first columns of a table: a terminal holds no more; the files hold all."""
    shown = Table(title=table.title, title_justify="left")
    short = table.only(table.header[:TERMINAL_COLUMNS])
    for place, name in enumerate(short.header):
        shown.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for row in short.rows:
        shown.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
    return shown
