"""Each measure over a number that was varied: a factor, a strength, an amount of data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plot_exp.report.measures import Measure
from plot_exp.report.study.drawing import (
    level,
    mean_with_band,
    saved,
    scale,
    shared_legend,
    ticks_at,
    title,
)
from plot_exp.report.study.groups import Group, baseline_of, short
from plot_exp.report.study.statistics import summarise
from plot_exp.report.style import Picture, finish, panels

# Numbers of training examples, and the figure over each.
DATA_SIZES = {
    "dataset.preference_limit": "data_efficiency",
    "dataset.limit": "data_efficiency_with_base",
}
SYMBOLS = {"loss.plot.alpha": "α", "loss.deft.weight": "ω"}
FEWEST_POINTS = 3
# More settings without a place on the axis than these are not drawn as levels: as many as there
# are kinds of lines.
MOST_LEVELS = 4


@dataclass(frozen=True)
class Curve:
    """Settings that differ in one number.

    Attributes:
        key: of the number.
        label: the terms, what is varied, and what tells the curve from others of the same terms.
        points: by the number, rising.
    """

    key: str
    label: str
    points: list[tuple[float, Group]]

    @property
    def axis(self) -> str:
        """Numbers that share an axis: the factors of added terms are one, each other is its own."""
        is_factor = self.key.startswith("loss.") and self.key.endswith((".alpha", ".weight"))
        return "factor" if is_factor else self.key


def curves(groups: Sequence[Group]) -> list[Curve]:
    """Every family of at least three settings that differ in one number alone."""
    found = []
    for loss in dict.fromkeys(group.loss for group in groups):
        alike = [group for group in groups if group.loss == loss]
        for key in _varied(alike):
            families = _families(alike, key)
            telling = [
                other
                for other in (families[0][0] if families else {})
                if len({str(fixed[other]) for fixed, _ in families}) > 1
            ]
            for fixed, points in families:
                label = loss if key in DATA_SIZES else f"{loss}, {_name(key)}"
                if telling:
                    label += "; " + " ".join(f"{short(other)}={fixed[other]}" for other in telling)
                found.append(Curve(key, label, points))
    return found


def draw(groups: Sequence[Group], folder: Path, measures: Sequence[Measure]) -> Iterator[Picture]:
    """One figure an axis, one panel a measure.

    Raises:
        RunError: the disk cannot be written.
    """
    found = curves(groups)
    for axis in dict.fromkeys(curve.axis for curve in found):
        chosen = [curve for curve in found if curve.axis == axis]
        if measures:
            yield _figure(groups, folder, measures, axis, chosen)


def _figure(
    groups: Sequence[Group],
    folder: Path,
    measures: Sequence[Measure],
    axis: str,
    found: Sequence[Curve],
) -> Picture:
    columns = min(2, len(measures))
    figure, places = panels(-(-len(measures) // columns), columns, width=9, height=2.9)
    beside = levels(groups, found)
    numbers = [number for curve in found for number, _ in curve.points]
    for place, measure in zip(places, measures, strict=False):
        for index, curve in enumerate(found):
            points = [(x, list(group.values(measure.key).values())) for x, group in curve.points]
            mean_with_band(place, points, curve.label, index)
        for index, group in enumerate(beside):
            if values := list(group.values(measure.key).values()):
                level(place, summarise(values).mean, group.label, index)
        ticks_at(place.xaxis, numbers)
        drawn = [group for curve in found for _, group in curve.points] + beside
        scale(place.yaxis, [v for group in drawn for v in group.values(measure.key).values()])
        finish(place, title(measure), "", _x_label(found), legend=False)
    for place in places[len(measures) :]:
        place.remove()
    shared_legend(figure, places[: len(measures)])
    name = {"factor": "sensitivity", **DATA_SIZES}.get(
        axis, f"sensitivity_{short(axis).replace('.', '_')}"
    )
    caption = (
        f"Each measure over {_x_label(found)}; means over seeds, bands are 95 % bootstrap "
        "intervals of the mean from three seeds on"
    )
    if beside:
        caption += "; grey lines are settings without that number"
    if further := len(_without_place(groups, found)) - len(beside):
        caption += f"; {further} more in the table alone"
    return saved(figure, folder, name, caption)


def _x_label(found: Sequence[Curve]) -> str:
    keys = list(dict.fromkeys(curve.key for curve in found))
    if set(keys) <= set(DATA_SIZES):
        return "training examples"
    if found[0].axis == "factor":
        return f"factor of the added term ({', '.join(_name(key) for key in keys)})"
    return _name(keys[0])


def _name(key: str) -> str:
    symbol = SYMBOLS.get(key)
    return "training examples" if key in DATA_SIZES else symbol or short(key)


def _varied(alike: Sequence[Group]) -> list[str]:
    """The keys in which settings of the same terms differ."""
    keys = dict.fromkeys(key for group in alike for key in group.settings)
    return [key for key in keys if len({str(group.settings.get(key)) for group in alike}) > 1]


def _families(
    alike: Sequence[Group], key: str
) -> list[tuple[dict[str, Any], list[tuple[float, Group]]]]:
    """The other settings of each family, and its points; only families of enough numbers."""
    others = [other for other in _varied(alike) if other != key]
    parts: dict[str, list[Group]] = {}
    for group in alike:
        rest = {other: value for other, value in group.settings.items() if other != key}
        parts.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(group)
    found = []
    for part in parts.values():
        points = [(number, group) for group in part if (number := _number(group, key)) is not None]
        if len({number for number, _ in points}) >= FEWEST_POINTS:
            fixed = {other: part[0].settings.get(other) for other in others}
            found.append((fixed, sorted(points, key=lambda point: point[0])))
    return found


def _number(group: Group, key: str) -> float | None:
    """The value as a number; of data sizes what the runs really had, `null` being all."""
    if key in DATA_SIZES:
        counts = [_mapping(run.data).get("train") for run in group.runs.values()]
        known = [float(count) for count in counts if isinstance(count, int)]
        if known:
            return max(known)
    value = group.settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _mapping(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return value or {}


def levels(groups: Sequence[Group], found: Sequence[Curve]) -> list[Group]:
    """Settings beside the curves: the curves' baselines, and few others."""
    rest = _without_place(groups, found)
    if len(rest) <= MOST_LEVELS:
        return rest
    baselines = [baseline_of(group, groups) for curve in found for _, group in curve.points]
    known = {id(group) for group in baselines if group is not None}
    return [group for group in rest if id(group) in known][:MOST_LEVELS]


def _without_place(groups: Sequence[Group], found: Sequence[Curve]) -> list[Group]:
    drawn = [id(group) for curve in found for _, group in curve.points]
    return [group for group in groups if id(group) not in drawn]
