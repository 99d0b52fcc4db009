"""The seven sub-preferences as one figure: a panel each, a bar a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plot_exp.report.style import BLACK, GREY, PALETTE, Picture, panels, save
from plot_exp.report.subpreferences import (
    MOST_COLUMNS,
    SUBPREFERENCES,
    Column,
    Item,
    measured,
    rows_of,
)

FILE = "subpreferences"
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "oo")
WIDTH = 0.8
MOST_LEVEL_LABELS = 3


def draw(
    columns: Sequence[Column], folder: Path, kinds: Sequence[str] = ("png",)
) -> Iterator[Picture]:
    """Draws the figure where any of the numbers is there.

    Args:
        kinds: of files; the first is the one that is named.

    Raises:
        RunError: the disk cannot be written.
    """
    if not measured(columns):
        return
    shown = columns[: MOST_COLUMNS + 1]
    figure, axes = panels(2, 4, width=11, height=2.7)
    for axis, (name, items) in zip(axes, SUBPREFERENCES.items(), strict=False):
        drawn = [item for item in items if item.short]
        _panel(axis, name, rows_of(drawn, shown), shown)
    _legend(axes[-1], shown)
    for kind in kinds:
        save(figure, folder, f"{FILE}.{kind}")
    caption = (
        "The seven sub-preferences; whiskers as in the table. What was not measured has no bar, "
        "and says so"
    )
    yield Picture(f"{FILE}.{kinds[0]}", caption)


def _panel(axis: Any, name: str, items: Sequence[Item], columns: Sequence[Column]) -> None:
    width = WIDTH / len(columns)
    for place, item in enumerate(items):
        for number, column in enumerate(columns):
            left = place - WIDTH / 2 + (number + 0.5) * width
            _bar(axis, item, column, number, left, width)
    arrow = {"higher": "↑", "lower": "↓"}[items[0].better]
    axis.set_title(f"{name} {arrow}", loc="left", fontweight="bold")
    turned = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"}
    crowded = len(items) > MOST_LEVEL_LABELS
    names = [item.short for item in items]
    axis.set_xticks(range(len(items)), names, **(turned if crowded else {}))
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.55, len(items) - 0.45)
    axis.set_ylim(0, items[0].top)
    axis.grid(False, axis="x")
    axis.set_ylabel({1.0: "share", 10.0: "grade", 100.0: "of 100"}[items[0].top], fontsize=8)


def _bar(axis: Any, item: Item, column: Column, number: int, place: float, width: float) -> None:
    value = column.value(item)
    if value is None:
        axis.text(
            place,
            0.03 * item.top,
            "not measured",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
            color=GREY,
        )
        return
    style = _style(number, column)
    axis.bar(place, value.value, width * 0.92, **style)
    if value.low is not None and value.high is not None:
        axis.plot([place, place], [value.low, value.high], "-", color=BLACK, linewidth=1)


def _style(number: int, column: Column) -> dict[str, Any]:
    """The start is grey; hatches tell the others apart in print."""
    color = GREY if column.base else PALETTE[(number - 1) % (len(PALETTE) - 1)]
    hatch = HATCHES[number % len(HATCHES)]
    return {"color": color, "alpha": 0.85, "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def _legend(axis: Any, columns: Sequence[Column]) -> None:
    axis.axis("off")
    for number, column in enumerate(columns):
        axis.bar(0, 0, label=column.title, **_style(number, column))
    axis.legend(loc="upper left", frameon=False, fontsize=9, borderaxespad=0)
