"""The preference distribution as pictures: what people favour, and how far the model moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plot_exp.report import flows
from plot_exp.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    Picture,
    finish,
    panels,
    printable,
    save,
)

SHOWN_TOKENS = 20


def draw(distribution: dict[str, Any], folder: Path) -> list[Picture]:
    """Draws what the file holds.

    Raises:
        RunError: the disk cannot be written.
    """
    pictures = []
    sides = {
        "Favoured tokens": (distribution.get("favoured") or [], BLUE),
        "Disfavoured tokens": (distribution.get("disfavoured") or [], VERMILLION),
    }
    sides = {title: side for title, side in sides.items() if side[0]}
    if sides:
        _bars(sides, folder)
        pictures.append(
            Picture(
                "preference_distribution.png",
                f"The {SHOWN_TOKENS} tokens that chosen responses hold more often than rejected "
                "ones, and the reverse (training responses only; ␣ is a blank)",
            )
        )
    if moved := distribution.get("moved"):
        _moved(moved, folder)
        pictures.append(
            Picture(
                "moved.png",
                "The tokens whose probability changed most: under the target, and under the model "
                "before and after training",
            )
        )
    return pictures + flows.draw(distribution, folder)


def _bars(sides: dict[str, tuple[list[dict[str, Any]], str]], folder: Path) -> None:
    longest = max(min(len(rows), SHOWN_TOKENS) for rows, _ in sides.values())
    figure, axes = panels(1, len(sides), width=4 * len(sides), height=0.9 + 0.19 * longest)
    for axis, (title, (rows, color)) in zip(axes, sides.items(), strict=True):
        shown = rows[:SHOWN_TOKENS]
        axis.barh(range(len(shown)), [row["difference"] for row in shown], color=color, height=0.7)
        _token_axis(axis, shown)
        unit = "count" if _are_counts(rows) else "difference of frequencies"
        axis.margins(x=0.02)
        axis.locator_params(axis="x", nbins=5)
        finish(axis, title, "", f"chosen − rejected, {unit}")
    save(figure, folder, "preference_distribution.png")


def _moved(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    shown = rows[:SHOWN_TOKENS]
    figure, (axis,) = panels(1, 1, width=6.5, height=1.4 + 0.19 * len(shown))
    for index, row in enumerate(shown):
        axis.plot([row["before"], row["after"]], [index, index], color=GREY, linewidth=1, zorder=1)
    places = range(len(shown))
    # The model before is a ring, so that it is seen beneath a model that did not move.
    for key, label, style in (
        ("target", "target", {"marker": "|", "color": GREEN, "s": 110}),
        ("before", "model before", {"marker": "o", "edgecolor": ORANGE, "color": "none", "s": 60}),
        ("after", "model after", {"marker": "D", "color": BLUE, "s": 16}),
    ):
        axis.scatter([row[key] for row in shown], places, label=label, zorder=2, **style)
    _token_axis(axis, shown)
    axis.locator_params(axis="x", nbins=6)
    finish(axis, "How far the model moved", "", "probability of the token", legend_below=0.55)
    save(figure, folder, "moved.png")


def _token_axis(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    axis.set_yticks(range(len(rows)))
    axis.set_yticklabels([printable(str(row["token"])) for row in rows], parse_math=False)
    axis.tick_params(axis="y", labelsize=8, length=0)
    axis.grid(False, axis="y")
    axis.invert_yaxis()


def _are_counts(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether `difference` is the plain difference of the two counts."""
    return all(row["difference"] == row["chosen"] - row["rejected"] for row in rows)
