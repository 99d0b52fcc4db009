"""What the figures of a study share: lines with bands, scales, one legend, two file formats."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from plot_exp.report.measures import Measure, number
from plot_exp.report.study.statistics import summarise
from plot_exp.report.style import GREY, LINES, PALETTE, Picture, save

MARKERS = "osD^vP*X"
# A logarithmic axis where positive values span at least this factor.
WIDE = 10
LONGEST_LEGEND_ROW = 110
LONGEST_LABEL = 44
# In place of a setting's number: the start, in grey.
BEFORE = -1

# A place on the x axis, and the values that single seeds have there.
Point = tuple[float, Sequence[float]]


def look(index: int) -> dict[str, Any]:
    """Colour, line and marker of the `index`-th setting: told apart in print without colour."""
    if index == BEFORE:
        return {"color": GREY, "linestyle": ":", "marker": "x", "markersize": 4.5}
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4.5,
    }


def mean_with_band(axis: Any, points: Sequence[Point], label: str, index: int) -> None:
    """Means over seeds as a line, and their 95 % bootstrap intervals as a band from three on."""
    found = [(place, summarise(values)) for place, values in points if values]
    if not found:
        return
    places = [place for place, _ in found]
    axis.plot(places, [summary.mean for _, summary in found], label=label, **look(index))
    if all(summary.low is not None for _, summary in found):
        low = [float(summary.low or 0.0) for _, summary in found]
        high = [float(summary.high or 0.0) for _, summary in found]
        style = look(index)
        axis.fill_between(places, low, high, color=style["color"], alpha=0.13, linewidth=0)
        for edge in (low, high):  # bands of equal grey are told apart by their edges
            line = style["linestyle"]
            axis.plot(places, edge, line, color=style["color"], linewidth=0.5, alpha=0.7)


def level(axis: Any, value: float, label: str, index: int) -> None:
    """A setting that has no place on the x axis, as a grey line across it."""
    style = LINES[(index + 1) % len(LINES)]
    axis.axhline(value, color=GREY, linestyle=style, linewidth=1.1, label=label)


def mark_start(axis: Any, start: float, rows: tuple[float, float], values: Sequence[float]) -> None:
    """The start as a dashed line across the rows, or at the edge as a number where it is far.

    Far is further from the values than these lie apart: a line there would leave no room to tell
    one value from another.

    Args:
        rows: the first and the last place on the y axis.
        values: what stands in the panel.
    """
    low, high = min(values, default=start), max(values, default=start)
    away = max(low - start, start - high)
    if low == high or away <= high - low:
        axis.plot([start, start], rows, "--", color=GREY, linewidth=0.9)
        return
    left = start < low
    text = f"◂ start {number(start)}" if left else f"start {number(start)} ▸"
    axis.text(
        0.01 if left else 0.99,
        rows[0] + 0.02,
        text,
        transform=axis.get_yaxis_transform(),
        horizontalalignment="left" if left else "right",
        verticalalignment="top",
        color=GREY,
        fontsize=7,
    )


def scale(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis where positive values span a decade or more; few plain tick labels."""
    if values and min(values) > 0 and max(values) >= WIDE * min(values):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        decades = max(values) / min(values) >= WIDE**3
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=5))


def ticks_at(axis: Any, values: Sequence[float]) -> None:
    """A tick at each value that was tried, where these are few."""
    tried = sorted(set(values))
    scale(axis, tried)
    if len(tried) <= 8:
        axis.set_ticks(tried, [f"{value:g}" for value in tried])
        axis.set_minor_locator(NullLocator())


def title(measure: Measure, width: int = 38) -> str:
    """A measure's name above a panel; 38 characters are half of a page's width."""
    return textwrap.fill(measure.label, width)


def wrapped(label: str) -> str:
    """A setting's label in lines that leave room for the figure."""
    return textwrap.fill(label, LONGEST_LABEL, break_long_words=False, break_on_hyphens=False)


def shared_legend(figure: Any, axes: Sequence[Any]) -> None:
    """One legend beneath all panels, each entry once."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    longest = min(LONGEST_LABEL, max(map(len, found))) + 8
    inches = figure.get_figwidth() / 9
    columns = max(1, min(len(found), int(LONGEST_LEGEND_ROW * inches) // longest, 4))
    figure.legend(
        found.values(),
        map(wrapped, found),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
        handlelength=3.2,
    )


def saved(figure: Any, folder: Path, name: str, caption: str) -> Picture:
    """The figure as `name.svg` and `name.png`.

    Raises:
        RunError: the disk cannot be written.
    """
    for kind in ("svg", "png"):
        save(figure, folder, f"{name}.{kind}")
    return Picture(f"{name}.png", caption)
