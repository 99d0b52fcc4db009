"""The figures of a study, as PNG and SVG: comparison, sensitivity, training curves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullFormatter

from plot_exp.report.measures import KNOWN, Measure
from plot_exp.report.study.groups import Group, all_measures
from plot_exp.report.study.statistics import Summary, summarise
from plot_exp.report.style import GREY, LINES, PALETTE, Picture, finish, panels, save

COMPARED = (
    "val/reward_accuracy",
    "val/logp_accuracy/mean",
    "val/transport_distance",
    "eval/perplexity_under_reference",
)
CURVES = ("train/loss", "val/reward_accuracy", "train/reward_margin", "train/plot/distance")
MOST_CURVES = 8
MARKERS = "osD^vP*X"
WIDE = 10


def draw(groups: Sequence[Group], folder: Path) -> list[Picture]:
    """Draws every figure that the runs have numbers for.

    Raises:
        RunError: the disk cannot be written.
    """
    return [
        picture
        for drawer in (_comparison, _sensitivity, _curves)
        for picture in drawer(groups, folder)
    ]


def _comparison(groups: Sequence[Group], folder: Path) -> Iterator[Picture]:
    """One row a group, one panel a measure: every seed as a dot, the mean with its interval."""
    chosen = [m for m in all_measures(groups) if m.key in COMPARED and m.category is None]
    if len(groups) < 2 or not chosen:
        return
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = panels(rows, columns, width=9.5, height=1.2 + 0.24 * len(groups))
    for axis, measure in zip(axes, chosen, strict=False):
        _dots(axis, groups, measure)
    for axis in axes[len(chosen) :]:
        axis.remove()
    yield from _saved(
        figure,
        folder,
        "comparison",
        "Every setting: single seeds (small), their mean and 95 % bootstrap interval (from three "
        "seeds on); the dashed line is the start",
    )


def _dots(axis: Any, groups: Sequence[Group], measure: Measure) -> None:
    for place, group in enumerate(groups):
        values = list(group.values(measure.key, measure.category).values())
        if not values:
            continue
        summary = summarise(values)
        color = PALETTE[0] if "plot" in group.loss.split("+") else PALETTE[1]
        axis.plot(values, [place] * len(values), ".", color=GREY, markersize=4)
        if summary.low is not None and summary.high is not None:
            axis.plot([summary.low, summary.high], [place, place], "-", color=color, linewidth=2)
        marker = "o" if "plot" in group.loss.split("+") else "s"
        axis.plot([summary.mean], [place], marker, color=color, markersize=6)
    starts = [v for group in groups for v in group.values(measure.key, base=True).values()]
    if starts:
        axis.axvline(float(np.mean(starts)), color=GREY, linewidth=0.9, linestyle="--")
    _scale(axis.xaxis, [v for group in groups for v in group.values(measure.key).values()])
    axis.set_yticks(range(len(groups)), [group.label for group in groups])
    axis.set_ylim(len(groups) - 0.5, -0.5)
    finish(axis, _title(measure), "", "")


def _sensitivity(groups: Sequence[Group], folder: Path) -> Iterator[Picture]:
    """Where only one number differs among groups of the same terms: a curve over it, with bands."""
    curves = list(sensitivity_curves(groups))
    measures = [m for m in all_measures(groups) if m.key in COMPARED and m.category is None]
    if not curves or not measures:
        return
    figure, axes = panels(-(-len(measures) // 2), min(2, len(measures)), width=9, height=3.3)
    for axis, measure in zip(axes, measures, strict=False):
        for index, (name, points) in enumerate(curves):
            _band(axis, name, points, measure, index)
        for group in groups:
            alone = [group.loss != name.split(",")[0] for name, _ in curves]
            values = list(group.values(measure.key).values())
            if values and all(alone):
                axis.axhline(
                    float(np.mean(values)),
                    color=GREY,
                    linestyle=LINES[1],
                    linewidth=1,
                    label=f"{group.label} alone",
                )
        _scale(axis.xaxis, [x for _, points in curves for x, _ in points])
        _scale(axis.yaxis, [v for group in groups for v in group.values(measure.key).values()])
        finish(axis, _title(measure), "", "value of the setting")
    for axis in axes[len(measures) :]:
        axis.remove()
    yield from _saved(
        figure,
        folder,
        "sensitivity",
        "Each measure over the setting that was varied; bands are 95 % bootstrap intervals of the "
        "mean over seeds",
    )


def sensitivity_curves(
    groups: Sequence[Group],
) -> Iterator[tuple[str, list[tuple[float, Group]]]]:
    """(`loss, setting`, points by value) where groups of the same terms differ in one number."""
    for loss in dict.fromkeys(group.loss for group in groups):
        alike = [group for group in groups if group.loss == loss]
        keys = [
            key
            for key in alike[0].settings
            if len({str(group.settings.get(key)) for group in alike}) > 1
        ]
        if len(keys) != 1 or len(alike) < 3:
            continue
        values = [group.settings.get(keys[0]) for group in alike]
        numbers = [float(v) for v in values if isinstance(v, int | float) and v is not True]
        if len(numbers) == len(alike):
            points = sorted(zip(numbers, alike, strict=True), key=lambda point: point[0])
            yield f"{loss}, {keys[0].removeprefix('loss.')}", points


def _band(
    axis: Any, name: str, points: Sequence[tuple[float, Group]], measure: Measure, index: int
) -> None:
    found: list[tuple[float, Summary]] = []
    for value, group in points:
        values = list(group.values(measure.key).values())
        if values:
            found.append((value, summarise(values)))
    if not found:
        return
    xs = [x for x, _ in found]
    color = PALETTE[index % len(PALETTE)]
    axis.plot(
        xs,
        [summary.mean for _, summary in found],
        LINES[index % len(LINES)],
        color=color,
        marker=MARKERS[index % len(MARKERS)],
        markersize=4,
        label=name,
    )
    if all(summary.low is not None for _, summary in found):
        low = [float(summary.low or 0.0) for _, summary in found]
        high = [float(summary.high or 0.0) for _, summary in found]
        axis.fill_between(xs, low, high, color=color, alpha=0.15, linewidth=0)


def _curves(groups: Sequence[Group], folder: Path) -> Iterator[Picture]:
    """Means over seeds at the steps that all runs of a group logged, and the seeds' range."""
    names = [
        name
        for name in CURVES
        if any(len(run.history.get(name, ([], []))[0]) > 1 for run in _histories(groups))
    ]
    if not names or len(groups) > MOST_CURVES:
        return
    figure, axes = panels(-(-len(names) // 2), min(2, len(names)), width=9, height=3.3)
    for axis, name in zip(axes, names, strict=False):
        for index, group in enumerate(groups):
            series = [
                dict(zip(*run.history[name], strict=True))
                for run in group.runs.values()
                if run.history and name in run.history
            ]
            if not series:
                continue
            steps = sorted(set.intersection(*(set(one) for one in series)))
            rows = np.array([[one[step] for step in steps] for one in series])
            color = PALETTE[index % len(PALETTE)]
            style = LINES[index % len(LINES)]
            axis.plot(steps, rows.mean(0), style, color=color, label=group.label)
            axis.fill_between(steps, rows.min(0), rows.max(0), color=color, alpha=0.12, linewidth=0)
        finish(axis, name, "")
    for axis in axes[len(names) :]:
        axis.remove()
    yield from _saved(
        figure, folder, "training_curves", "Means over seeds; bands reach from least to most"
    )


def _scale(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis where positive values span more than a decade; few plain tick labels."""
    if values and min(values) > 0 and max(values) > WIDE * min(values):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=5))


def _title(measure: Measure) -> str:
    return textwrap.fill(KNOWN[measure.key][0], 34)


def _histories(groups: Sequence[Group]) -> Iterator[Any]:
    return (run for group in groups for run in group.runs.values() if run.history)


def _saved(figure: Any, folder: Path, name: str, caption: str) -> Iterator[Picture]:
    for kind in ("svg", "png"):
        save(figure, folder, f"{name}.{kind}")
    yield Picture(f"{name}.png", caption)
