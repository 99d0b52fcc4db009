"""The large flows of transport, before and after training: a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize

from plot_exp.report.markdown import details, escape, table
from plot_exp.report.measures import number
from plot_exp.report.style import GREY, Picture, panels, printable, save

SHOWN_FLOWS, TABLE_FLOWS = 16, 12

KINDS = {
    "form": ("flows.png", "the plan of this run's form"),
    "full": ("flows_full.png", "transport in the full embedding cost, which the form stands for"),
}
_TIMES = {"before": "Before training", "after": "After training"}
# Its lightness falls evenly, for print without colour and for every kind of colour vision.
OPACITY = 0.85
COSTS = ListedColormap(colormaps["cividis_r"](np.linspace(0.08, 1, 256)))


def draw(distribution: dict[str, Any], folder: Path) -> list[Picture]:
    """Draws the flows that the file holds, one picture a plan.

    Raises:
        RunError: the disk cannot be written.
    """
    pictures = []
    for kind, (file, caption) in KINDS.items():
        if sides := _sides(distribution, kind):
            _picture(sides, folder, [file])
            pictures.append(Picture(file, _caption(caption)))
    return pictures


def draw_one(distribution: dict[str, Any], folder: Path, name: str) -> Picture | None:
    """The full cost's flows, else those of the form, as `name.svg` and `name.png`.

    Raises:
        RunError: the disk cannot be written.
    """
    for kind in ("full", "form"):
        if sides := _sides(distribution, kind):
            _picture(sides, folder, [f"{name}.svg", f"{name}.png"])
            return Picture(f"{name}.png", _caption(KINDS[kind][1]))
    return None


def _caption(plan: str) -> str:
    return (
        f"Which tokens the model gives too much (left) and which it lacks (right): {plan}. The "
        f"{SHOWN_FLOWS} largest flows; as wide as the mass, the darker the dearer; ␣ is a blank"
    )


def tables(distribution: dict[str, Any]) -> str:
    """The same as Markdown tables, folded; empty where the file holds no flows."""
    blocks = []
    for kind, (_, caption) in KINDS.items():
        for time, found in _sides(distribution, kind).items():
            rows = [
                [
                    escape(printable(str(row["giver"]))),
                    escape(printable(str(row["receiver"]))),
                    f"{row['mass']:.3g}",
                    f"{row['share']:.1%}".replace("%", " %"),
                    number(row["cost"]),
                ]
                for row in found["rows"][:TABLE_FLOWS]
            ]
            header = ["From", "To", "Mass", "Of all that moves", "Cost of a unit"]
            blocks.append(
                f"**{_TIMES[time]}: {caption}.** Mass {number(found['mass'])} moves in all.\n\n"
                + table(header, rows, 3)
            )
    return details("Which tokens give mass to which", "\n\n".join(blocks)) if blocks else ""


def table_rows(distribution: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of all flows in the file, for a log."""
    columns = ["when", "plan", "from", "to", "mass", "share", "cost"]
    keys = ("giver", "receiver", "mass", "share", "cost")
    rows = [
        [time, kind, *(row[key] for key in keys)]
        for kind in KINDS
        for time, found in _sides(distribution, kind).items()
        for row in found["rows"]
    ]
    return columns, rows


def _sides(distribution: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    flows = distribution.get("flows") or {}
    return {
        time: {"rows": flows[time][kind], "mass": flows[time]["mass"]}
        for time in _TIMES
        if (flows.get(time) or {}).get(kind)
    }


def _picture(sides: dict[str, dict[str, Any]], folder: Path, files: Sequence[str]) -> None:
    shown = {time: found["rows"][:SHOWN_FLOWS] for time, found in sides.items()}
    costs = [row["cost"] for rows in shown.values() for row in rows]
    norm = Normalize(min(costs), max(costs) if max(costs) > min(costs) else min(costs) + 1.0)
    figure, axes = panels(1, len(sides), width=4.6 * len(sides), height=5.2)
    for axis, (time, rows) in zip(axes, shown.items(), strict=True):
        _bands(axis, rows, norm)
        share = sum(row["share"] for row in rows)
        axis.set_title(
            f"{_TIMES[time]}: {share:.0%} of the mass {number(sides[time]['mass'])}".replace(
                "%", " %", 1
            ),
            loc="left",
            fontweight="bold",
        )
        axis.axis("off")
    bar = figure.colorbar(
        ScalarMappable(norm, COSTS),
        ax=axes,
        location="bottom",
        shrink=0.5,
        aspect=40,
        alpha=OPACITY,
    )
    bar.set_label("cost of moving a unit of mass", size=8)
    for file in files:
        save(figure, folder, file)


def _bands(axis: Any, rows: Sequence[dict[str, Any]], norm: Normalize) -> None:
    """Flows as bands between two columns of tokens, the heaviest tokens on top."""
    unit = sum(row["mass"] for row in rows)
    places = {side: _places(rows, side, unit) for side in ("giver", "receiver")}
    used = {side: {key: top for key, (top, _) in found.items()} for side, found in places.items()}
    steps = np.linspace(0, 1, 40)
    bend = 3 * steps**2 - 2 * steps**3
    order = sorted(rows, key=lambda row: places["receiver"][row["receiver_id"]][0])
    for row in sorted(order, key=lambda row: places["giver"][row["giver_id"]][0]):
        height = row["mass"] / unit
        left = used["giver"][row["giver_id"]]
        right = used["receiver"][row["receiver_id"]]
        used["giver"][row["giver_id"]] += height
        used["receiver"][row["receiver_id"]] += height
        edge = left + (right - left) * bend
        axis.fill_between(
            steps,
            edge,
            edge + height,
            facecolor=COSTS(norm(row["cost"])),
            edgecolor="white",
            linewidth=0.3,
            alpha=OPACITY,
        )
    for side, x, align in (("giver", -0.02, "right"), ("receiver", 1.02, "left")):
        names = {row[f"{side}_id"]: str(row[side]) for row in rows}
        for token, (top, height) in places[side].items():
            here = 0.0 if side == "giver" else 1.0
            axis.plot([here, here], [top, top + height], color=GREY, linewidth=2)
            axis.text(x, top + height / 2, printable(names[token]), ha=align, va="center", size=8)
    axis.set_xlim(-0.35, 1.35)
    ends = [top + height for found in places.values() for top, height in found.values()]
    axis.set_ylim(max(ends) + 0.02, -0.02)


def _places(
    rows: Sequence[dict[str, Any]], side: str, unit: float
) -> dict[int, tuple[float, float]]:
    """Each token's top and height on its side, with room for every name."""
    masses: dict[int, float] = {}
    for row in rows:
        masses[row[f"{side}_id"]] = masses.get(row[f"{side}_id"], 0.0) + row["mass"] / unit
    found: dict[int, tuple[float, float]] = {}
    top = 0.0
    for token, height in sorted(masses.items(), key=lambda item: -item[1]):
        found[token] = (top, height)
        top += max(height, 0.045) + 0.02
    return found
