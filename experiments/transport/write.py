"""From the measured rows to tables and a figure: `python write.py` makes them again."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from plot_exp.files import write_text
from plot_exp.report.markdown import table
from plot_exp.report.style import BLUE, GREEN, ORANGE, VERMILLION, panels, save

Row = dict[str, str]
MEASURES = {"giving": BLUE, "receiving": VERMILLION, "value": GREEN}


def write_results(folder: Path) -> None:
    """Writes `forms.md` and `forms.png` from `forms.csv` in `folder`."""
    with (folder / "forms.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    blocks = [
        "# Forms of transport beside exact transport",
        "Correlations with the exact dual are weighted by residual mass over the 2,048 heaviest "
        "tokens a side; `error` is the root mean square left by the best multiple of the gradient "
        "over that of the best multiple of sign(p − q); `value` is the plain correlation with the "
        "exact value over the mixtures. Empty: not defined or not measured.",
        "## Over all settings: median (least to most)",
        _summary(rows),
    ]
    for heading, part in _grouped(rows).items():
        columns = ["form", "giving", "receiving", "both", "error", "value"]
        body = [[row["form"], *(_short(row[key]) for key in columns[1:])] for row in part]
        blocks += [f"## {heading}", table(columns, body, 1)]
    write_text(folder / "forms.md", "\n\n".join(blocks) + "\n")
    _figure(rows, folder)


def write_reach(folder: Path) -> None:
    """Writes `reach.md` from `reach.csv` in `folder`: the worst of the compared steps."""
    with (folder / "reach.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("run", "embedding", "cost"))
        groups.setdefault(key, []).append(row)
    ends = {
        "giving, least": ("giving", min),
        "receiving, least": ("receiving", min),
        "error, most": ("error", max),
        "value / exact, least": ("value / exact", min),
        "upper / exact, most": ("upper / exact", max),
        "carried giving, least": ("carried giving", min),
        "carried receiving, least": ("carried receiving", min),
    }
    body = [
        [*key, str(len(part))]
        + [f"{worst(float(row[name]) for row in part):.3f}" for name, worst in ends.values()]
        for key, part in groups.items()
    ]
    text = [
        "# Carried potentials along training runs, beside exact transport",
        "Weighted by residual mass, on the 2,048 heaviest residual tokens of each side; the worst "
        "of the compared steps, of which the first is cold and the others warm. `error` is over "
        "that of the best multiple of sign(p − q). All steps stand in `reach.csv`.",
        table(["run", "embedding", "cost", "steps", *ends], body, len(ends)),
    ]
    write_text(folder / "reach.md", "\n\n".join(text) + "\n")


def _summary(rows: Sequence[Row]) -> str:
    forms = dict.fromkeys(row["form"] for row in rows)
    columns = ["giving", "receiving", "both", "error", "value"]
    body = [[form, *(_range(rows, form, column) for column in columns)] for form in forms]
    return table(["form", *columns], body, 1)


def _range(rows: Sequence[Row], form: str, column: str) -> str:
    found = _numbers(rows, form, column)
    if not found:
        return ""
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def _numbers(rows: Sequence[Row], form: str, column: str) -> list[float]:
    return [float(row[column]) for row in rows if row["form"] == form and row[column]]


def _grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        heading = (
            f"{row['data']}, {row['embedding']} embedding, {row['target']} target, "
            f"{row['stage']}, cost {row['cost']}"
        )
        found.setdefault(heading, []).append(row)
    return found


def _short(text: str) -> str:
    return f"{float(text):.2f}" if text else ""


def _figure(rows: Sequence[Row], folder: Path) -> None:
    forms = list(dict.fromkeys(row["form"] for row in rows))
    figure, axes = panels(1, len(MEASURES), width=11, height=1.2 + 0.3 * len(forms))
    for axis, (column, color) in zip(axes, MEASURES.items(), strict=True):
        for place, form in enumerate(forms):
            found = _numbers(rows, form, column)
            axis.scatter(found, [place] * len(found), color=color, s=12, alpha=0.6)
            if found:
                axis.scatter([statistics.median(found)], [place], color=ORANGE, marker="|", s=160)
        axis.set_yticks(range(len(forms)), forms if axis is axes[0] else [""] * len(forms))
        axis.set_ylim(len(forms) - 0.5, -0.5)
        axis.set_xlim(-1.05, 1.05)
        axis.axvline(0.9, color="#BBBBBB", linewidth=0.8)
        title = "value over mixtures" if column == "value" else f"gradient, {column} side"
        axis.set_title(title, loc="left", fontweight="bold")
        axis.set_xlabel("correlation with exact transport")
    save(figure, folder, "forms.png")


if __name__ == "__main__":
    write_results(Path(__file__).parent / "results")
    write_reach(Path(__file__).parent / "results")
