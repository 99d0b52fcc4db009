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


def run(config: Config, run_dir: Path) -> None:
    """Rewrites `report.md` of each run at or below `config.runs`, and `comparison.md` there.

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
    compare.write(folder, read)
    _show(folder, read)


def _show(folder: Path, runs: list[contents.Contents]) -> None:
    console = Console()
    table = Table(title=f"{len(runs)} runs side by side", title_justify="left")
    table.add_column("", overflow="fold")
    for one in runs:
        table.add_column(Text(compare.name_of(one.run_dir, folder)), justify="right")
    for lines in (compare.settings(runs), compare.outcomes(runs)):
        for line in lines:
            table.add_row(*map(Text, line))
        table.add_section()
    console.print(table)
    console.print(Text(f"Look first at {folder / 'comparison.md'}"), soft_wrap=True)
