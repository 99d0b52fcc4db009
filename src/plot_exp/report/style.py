"""How figures look: colours that colour-blind readers tell apart, line styles for print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from plot_exp.files import replacing
from plot_exp.report.contents import Series

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that paper swallows.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE, BLACK, GREY = "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#666666"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)
LINES = ("-", "--", "-.", ":")
CHOSEN, REJECTED = BLUE, VERMILLION

STEP_AXIS = "optimizer step"

_SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its file name under `plots/`, and what it shows."""

    file: str
    caption: str


def panels(
    rows: int, columns: int, width: float = 8.0, height: float = 3.0
) -> tuple[Figure, list[Any]]:
    """A figure with `rows` × `columns` axes, `width` inches in all and `height` a row."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height * rows), layout=_spacing())
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _spacing() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)


def save(figure: Figure, folder: Path, file: str) -> None:
    """Writes the figure whole or not at all, in the format that the name ends in.

    Raises:
        RunError: the disk cannot be written.
    """
    with matplotlib.rc_context(_SETTINGS), replacing(folder / file) as temporary:
        figure.savefig(temporary, format=Path(file).suffix[1:], dpi=150)


def line(axis: Any, series: Series, label: str, index: int = 0, **style: Any) -> None:
    """A curve; few points are marked, so that one measured value is seen too."""
    steps, values = series
    defaults = {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": LINES[index % len(LINES)],
        "marker": "o" if len(steps) <= 12 else "",
        "markersize": 3.5,
    }
    axis.plot(steps, values, label=label, **{**defaults, **style})


def finish(
    axis: Any,
    title: str,
    y_label: str,
    x_label: str = STEP_AXIS,
    *,
    legend_below: float = 0.6,
    legend: bool = True,
) -> None:
    """Titles, and a legend beneath the axes where there is more than one thing to tell apart.

    Args:
        legend_below: how far beneath the axes the legend stands, in inches.
        legend: False where the figure has one for all its panels.
    """
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel(x_label)
    if x_label == STEP_AXIS:
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axis.set_ylabel(y_label)
    handles, labels = axis.get_legend_handles_labels()
    if legend and len(handles) > 1:
        rows = axis.get_subplotspec().get_gridspec().nrows
        height = 0.75 * axis.figure.get_figheight() / rows
        axis.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, -legend_below / height),
            fontsize=8,
            frameon=False,
            ncols=2 if max(map(len, labels)) > 14 else min(len(labels), 4),
        )


def printable(token: str) -> str:
    """A token as it can be drawn: blanks visible, and characters without a glyph by their code."""
    glyphs = get_font(findfont("DejaVu Sans"))
    visible = token.translate({ord("Ġ"): "␣", ord(" "): "␣", ord("Ċ"): "\\n", ord("\n"): "\\n"})
    drawn = "".join(
        character
        if character.isprintable() and glyphs.get_char_index(ord(character))
        else f"\\u{ord(character):04x}"
        for character in visible
    )
    if not drawn:
        return "(empty)"
    return drawn if len(drawn) <= 18 else drawn[:17] + "…"
