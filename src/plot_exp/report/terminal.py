"""The closing words of a run on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plot_exp.report import contents as run_contents
from plot_exp.report.measures import KNOWN, Measure, measures, number
from plot_exp.report.outcome import signed


def closing_table(run_dir: Path, console: Console | None = None) -> None:
    """Prints what changed, before and after, and where to look.

    Args:
        run_dir: a finished run.
        console: where to print; the terminal or a plain pipe by default.

    Raises:
        UserError: `run_dir` is no run directory.
    """
    console = console or Console()
    found = measures(run_contents.read(run_dir).metrics or {})
    rows = [row for row in found if row.key in KNOWN and row.in_summary]
    if rows:
        console.print(_table(rows))
    else:
        console.print(Text("Nothing was measured before and after this run."))
    report = run_dir / "report.md"
    if report.exists():
        console.print(Text(f"Look first at {report}"), soft_wrap=True)
    else:
        console.print(Text(f"Everything is in {run_dir}"), soft_wrap=True)


def _table(rows: list[Measure]) -> Table:
    table = Table(title="Before and after", title_justify="left")
    table.add_column("Measure", overflow="fold")
    for name in ("Cases", "Before", "After", "Change"):
        table.add_column(name, justify="right", no_wrap=name != "Cases")
    for row in rows:
        label = row.label if row.category is None else f"{row.label}, {row.category}"
        values = [Text(number(side.value) if side else "–") for side in (row.before, row.after)]
        change = "" if row.change is None else signed(row.change)
        table.add_row(Text(label), Text(row.count), *values, Text(change))
    return table
