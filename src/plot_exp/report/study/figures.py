"""The figures of a study, as PNG and SVG: comparison, training curves, and those of other files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plot_exp.report.measures import Measure
from plot_exp.report.study import attack_curves, sensitivity, transport_flows
from plot_exp.report.study.drawing import (
    look,
    mark_start,
    saved,
    scale,
    shared_legend,
    title,
    wrapped,
)
from plot_exp.report.study.groups import Group, all_measures, by_start
from plot_exp.report.study.statistics import summarise
from plot_exp.report.style import GREY, PALETTE, Picture, finish, panels

COMPARED = (
    "val/reward_accuracy",
    "val/logp_accuracy/mean",
    "val/transport_distance",
    "eval/perplexity_under_reference",
)
CURVES = ("train/loss", "val/reward_accuracy", "train/reward_margin", "train/plot/distance")
WIDTH = 9.5  # inches; ten characters of a title or fourteen of a label take one
MOST_CURVES = 8
MARKS = 8


def draw(groups: Sequence[Group], folder: Path) -> list[Picture]:
    """Draws every figure that the runs have numbers for.

    Raises:
        RunError: the disk cannot be written.
    """
    compared = [m for m in all_measures(groups) if m.key in COMPARED and m.category is None]
    return [
        *_comparison(groups, folder, compared),
        *sensitivity.draw(groups, folder, compared),
        *attack_curves.draw(groups, folder),
        *_curves(groups, folder),
        *transport_flows.draw(groups, folder),
    ]


def _comparison(
    groups: Sequence[Group], folder: Path, measures: Sequence[Measure]
) -> Iterator[Picture]:
    """One row a group, one panel a measure: every seed as a dot, the mean with its interval."""
    if len(groups) < 2 or not measures:
        return
    columns = len(measures) if len(measures) <= 3 else 2
    rows = -(-len(measures) // columns)
    lines = sum(wrapped(group.label).count("\n") + 1 for group in groups)
    height = 1.2 + 0.2 * lines + 0.05 * len(groups)
    figure, axes = panels(rows, columns, width=WIDTH, height=height)
    longest = max(len(line) for group in groups for line in wrapped(group.label).split("\n"))
    width = max(16, int(10 * (WIDTH - 0.07 * longest) / columns) - 2)
    for place, (axis, measure) in enumerate(zip(axes, measures, strict=False)):
        _dots(axis, groups, measure, named=place % columns == 0, width=width)
    for axis in axes[len(measures) :]:
        axis.remove()
    yield saved(
        figure,
        folder,
        "comparison",
        "Every setting: single seeds (small), their mean (circles with PLOT, squares without) and "
        "95 % bootstrap interval (from three seeds on); the dashed line is the start; where "
        "that is far, it stands at the edge as a number",
    )


def _dots(axis: Any, groups: Sequence[Group], measure: Measure, *, named: bool, width: int) -> None:
    for place, group in enumerate(groups):
        values = list(group.values(measure.key, measure.category).values())
        if not values:
            continue
        summary = summarise(values)
        with_plot = "plot" in group.loss.split("+")
        color = PALETTE[0] if with_plot else PALETTE[1]
        axis.plot(values, [place + 0.25] * len(values), ".", color=GREY, markersize=4)
        if summary.low is not None and summary.high is not None:
            axis.plot([summary.low, summary.high], [place, place], "-", color=color, linewidth=2)
        axis.plot([summary.mean], [place], "o" if with_plot else "s", color=color, markersize=6)
    above = -0.5
    shown = [value for group in groups for value in group.values(measure.key).values()]
    for alike in by_start(groups):
        below = above + len(alike)
        starts = [v for group in alike for v in group.values(measure.key, base=True).values()]
        if starts:
            start = float(np.mean(starts))
            mark_start(axis, start, (above, below), shown)
        above = below
    scale(axis.xaxis, shown)
    axis.set_yticks(range(len(groups)), [wrapped(group.label) if named else "" for group in groups])
    axis.set_ylim(len(groups) - 0.5, -0.5)
    finish(axis, title(measure, width), "", "")


def _curves(groups: Sequence[Group], folder: Path) -> Iterator[Picture]:
    """Means over seeds at the steps that all runs of a group logged, and the seeds' range."""
    shown = [groups[place] for place in _spread(len(groups), MOST_CURVES)]
    names = [
        name
        for name in CURVES
        if any(len(run.history.get(name, ([], []))[0]) > 1 for run in _histories(shown))
    ]
    if not names:
        return
    figure, axes = panels(-(-len(names) // 2), min(2, len(names)), width=9, height=2.9)
    for axis, name in zip(axes, names, strict=False):
        for index, group in enumerate(shown):
            _mean_curve(axis, group, name, index)
        finish(axis, name, "", legend=False)
    for axis in axes[len(names) :]:
        axis.remove()
    shared_legend(figure, axes[: len(names)])
    caption = "Training: means over seeds; bands reach from least to most"
    if len(shown) < len(groups):
        caption += f"; {len(shown)} of the {len(groups)} settings, evenly over the list"
    yield saved(figure, folder, "training_curves", caption)


def _mean_curve(axis: Any, group: Group, name: str, index: int) -> None:
    series = [
        dict(zip(*run.history[name], strict=True))
        for run in _histories([group])
        if name in run.history
    ]
    if not series:
        return
    steps = sorted(set.intersection(*(set(one) for one in series)))
    rows = np.array([[one[step] for step in steps] for one in series])
    style = look(index)
    # Marks of different settings stand at different steps, so that none hides another.
    every = max(1, len(steps) // MARKS)
    axis.plot(steps, rows.mean(0), label=group.label, markevery=(index % every, every), **style)
    color = style["color"]
    axis.fill_between(steps, rows.min(0), rows.max(0), color=color, alpha=0.12, linewidth=0)


def _spread(count: int, most: int) -> list[int]:
    """At most so many places of `count`, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _histories(groups: Sequence[Group]) -> Iterator[Any]:
    return (run for group in groups for run in group.runs.values() if run.history)
