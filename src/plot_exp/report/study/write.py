"""A study on disk: comparison.html, tables/ and figures/ beside the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plot_exp.files import write_text
from plot_exp.report import subpreference_figure, subpreferences
from plot_exp.report.contents import Contents
from plot_exp.report.study import figures, page, summary
from plot_exp.report.study.groups import NAMES, Group, grouped, implied, short, unsaid
from plot_exp.report.study.tables import StudyTable
from plot_exp.report.style import Picture

TABLES, FIGURES = "tables", "figures"

# Settings of terms that say how strong they are.
FACTORS = (".alpha", ".beta", ".gradient_share")


@dataclass(frozen=True)
class Study:
    """What was written.

    Attributes:
        lead: what was counted and what was left out, as sentences.
    """

    groups: list[Group]
    tables: list[StudyTable]
    pictures: list[Picture]
    lead: list[str]

    def markdown(self) -> str:
        """The tables and figures as sections, below a title of the caller's."""
        parts = [*self.lead]
        parts += [f"![{p.caption}]({FIGURES}/{p.file})\n\n*{p.caption}.*" for p in self.pictures]
        parts += [table.markdown() for table in self.tables]
        return "\n\n".join(parts)


def write(folder: Path, runs: Sequence[Contents]) -> Study:
    """Writes tables as CSV and LaTeX, figures as PNG and SVG, and one page with all of them.

    Raises:
        RunError: the disk cannot be written.
    """
    groups = grouped(runs)
    columns = subpreferences.columns_of_groups(groups)
    tables = summary.tables(groups)
    if subpreferences.measured(columns):
        tables = [subpreferences.table(columns), *tables]
    for table in tables:
        write_text(folder / TABLES / f"{table.name}.csv", table.csv())
        write_text(folder / TABLES / f"{table.name}.tex", table.latex())
    own = subpreference_figure.draw(columns, folder / FIGURES, ("png", "svg"))
    pictures = [*own, *figures.draw(groups, folder / FIGURES)]
    lead = _lead(groups, runs)
    title = f"{folder.resolve().name}: {len(runs)} runs in {len(groups)} settings"
    html = page.compose(title, lead, tables, pictures, folder / FIGURES)
    write_text(folder / "comparison.html", html)
    return Study(groups, tables, pictures, lead)


def _lead(groups: Sequence[Group], runs: Sequence[Contents]) -> list[str]:
    counts = sorted({len(group.runs) for group in groups})
    seeds = (
        " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
        if counts
        else "0"
    )
    total = sum(len(group.runs) for group in groups)
    found = [
        f"{_counted(total, 'finished run')} in {_counted(len(groups), 'setting')}, "
        f"{seeds} seed{'' if seeds == '1' else 's'} each."
    ]
    if common := _common(groups):
        found.append(f"In all of them: {', '.join(common)}.")
    if usual := _usual(groups):
        found.append(f"What goes without saying in the names of settings: {', '.join(usual)}.")
    if brought := _brought(groups):
        found.append(f"What comes with a name: {'; '.join(brought)}.")
    unfinished = [run.run_dir.name for run in runs if run.metrics is None]
    if unfinished:
        found.append(
            f"{_counted(len(unfinished), 'run')} without metrics.json left out (not finished, or "
            f"failed): {', '.join(unfinished)}."
        )
    repeated = [path.name for group in groups for path in group.repeated]
    if repeated:
        found.append(
            f"{_counted(len(repeated), 'run')} of a setting and seed that is there already, left "
            f"out: {', '.join(repeated)}."
        )
    return found


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _common(groups: Sequence[Group]) -> list[str]:
    """What is true of every run and stands in no label: model, data, length, factors."""
    settings = [group.settings for group in groups]
    keys = dict.fromkeys(key for one in settings for key in one)
    factors = [key for key in keys if key.startswith("loss.") and key.endswith(FACTORS)]
    found = []
    for key in (*NAMES, *factors):
        values = {str(one[key]) for one in settings if one.get(key) is not None}
        if len(values) == 1:
            found.append(f"{short(key)}={values.pop()}")
    for key, noun in (("train/steps", "steps"), ("val/count", "held-out examples")):
        counts = {value for group in groups for value in group.number(key).values()}
        if len(counts) == 1:
            found.append(f"{counts.pop():,.0f} {noun}")
    return found


def _brought(groups: Sequence[Group]) -> list[str]:
    """The settings that go with a dataset's or a model's name, where there are several."""
    found: dict[str, dict[str, str]] = {}
    for group in groups:
        for key, value in group.settings.items():
            values = {str(other.settings.get(key)) for other in groups}
            if len(values) > 1 and (name := implied(key, groups)):
                found.setdefault(f"{short(name)}={group.settings[name]}", {})[short(key)] = value
    return [
        f"{name} has {', '.join(f'{key}={value}' for key, value in brought.items())}"
        for name, brought in found.items()
    ]


def _usual(groups: Sequence[Group]) -> list[str]:
    """The values that labels leave out, with the loss where the losses do not agree."""
    by_setting: dict[str, dict[str, list[str]]] = {}
    for loss, settings in unsaid(groups).items():
        for key, value in settings.items():
            if value is not None:
                by_setting.setdefault(short(key), {}).setdefault(value, []).append(loss)
    return [
        f"{key}={value}" + (f" (of {', '.join(losses)})" if len(values) > 1 else "")
        for key, values in by_setting.items()
        for value, losses in values.items()
    ]
