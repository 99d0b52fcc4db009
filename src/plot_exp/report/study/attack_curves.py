"""Attack success over the number of cases and over the attack's steps, by setting.

Read from `evaluations.json` of the runs, where `eval=asr` leaves its curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from plot_exp.report.attacks import CURVES, LOOSE, NAMES, Side, points_of, side_of
from plot_exp.report.contents import Contents
from plot_exp.report.study.cells import summary_cell
from plot_exp.report.study.drawing import BEFORE, mean_with_band, saved, shared_legend
from plot_exp.report.study.groups import Group
from plot_exp.report.study.statistics import summarise
from plot_exp.report.study.tables import StudyTable, text_cells
from plot_exp.report.style import Picture, finish, panels

KINDS = {"over_cases": "case", "over_steps": "step"}
START = "before training"
OWN_ATTACKER = "the attacked model itself"


@dataclass(frozen=True)
class Curve:
    """The success of one attack on one setting.

    Attributes:
        points: place on the axis, and each seed's success rate there; places that all runs have.
    """

    label: str
    points: list[tuple[float, list[float]]]


def curves(groups: Sequence[Group], attack: str, kind: str) -> list[Curve]:
    """The start's curve and then each setting's, where they were measured."""
    found = []
    if start := _common(_starts(groups, attack, kind)):
        found.append(Curve(START, start))
    for group in groups:
        sides = [side_of(run, "after") for run in group.runs.values()]
        if points := _common([_by_place(side, attack, kind) for side in sides if side]):
            found.append(Curve(group.label, points))
    return found


def draw(groups: Sequence[Group], folder: Path) -> Iterator[Picture]:
    """One row a kind of curve, one panel an attack, one line a setting.

    Raises:
        RunError: the disk cannot be written.
    """
    shown = _panels(groups)
    if not shown:
        return
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = panels(rows, columns, width=3.1 * columns + 0.5, height=2.9)
    order = {group.label: place for place, group in enumerate(groups)}
    for axis, (attack, kind, found) in zip(axes, shown, strict=False):
        for curve in found:
            mean_with_band(axis, curve.points, curve.label, order.get(curve.label, BEFORE))
        axis.set_ylim(-0.04, 1.04)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        finish(axis, NAMES[attack], "success rate", CURVES[kind][1], legend=False)
    for axis in axes[len(shown) :]:
        axis.remove()
    shared_legend(figure, axes[: len(shown)])
    yield saved(
        figure,
        folder,
        "attack_curves",
        "Attack success: of at least one of the first cases, and of the best candidate so far; "
        "means over seeds, bands are 95 % bootstrap intervals of the mean from three seeds on; "
        "lower is better",
    )


def table(groups: Sequence[Group]) -> StudyTable | None:
    """A row for each place of each curve, a column for each setting; None without curves."""
    shown = _panels(groups)
    labels = list(dict.fromkeys(curve.label for _, _, found in shown for curve in found))
    rows = []
    for attack, kind, found in shown:
        by_label = {curve.label: dict(curve.points) for curve in found}
        for place in sorted({at for points in by_label.values() for at in points}):
            values = [by_label.get(label, {}).get(place) for label in labels]
            cells = [summary_cell(summarise(one) if one else None) for one in values]
            name = f"{NAMES[attack]}, {place:g} {KINDS[kind]}{'s' if place > 1 else ''}"
            rows.append([*text_cells([name]), *cells])
    if not rows:
        return None
    title = "Attack success over cases and over steps"
    return StudyTable("attack_curves", title, _note(groups), ["", *labels], rows)


def _panels(groups: Sequence[Group]) -> list[tuple[str, str, list[Curve]]]:
    """(attack, kind, curves) where some curve has more than one point."""
    found = []
    for kind in KINDS:
        for attack in NAMES:
            drawn = curves(groups, attack, kind)
            if any(len(curve.points) > 1 for curve in drawn):
                found.append((attack, kind, drawn))
    return found


def _note(groups: Sequence[Group]) -> str:
    sides = [side for run in _runs(groups) if (side := side_of(run, "after"))]
    judges = dict.fromkeys(str(side.get("judge")) for side in sides)
    sentences = [
        "Mean ± standard deviation over seeds [95 % bootstrap interval of the mean; from three "
        f"seeds on]. Judged by {', '.join(judges)}."
    ]
    if any(side.get("judged_by") == "refusal" for side in sides):
        sentences.append(LOOSE.replace("*", "").replace("`", ""))
    if writing := [NAMES[attack] for attack in ("zero_shot", "sfs") if _own(groups, attack)]:
        sentences.append(
            f"The prompts of {' and '.join(writing)} were written by {OWN_ATTACKER}: each setting "
            "met another attacker there, so that these numbers do not compare between settings."
        )
    return " ".join(sentences)


def _own(groups: Sequence[Group], attack: str) -> bool:
    """Whether some run's model wrote the prompts of this attack on itself."""
    after = [(run.evaluations or {}).get("asr", {}).get("after", {}) for run in _runs(groups)]
    attacks = [one.get("settings", {}).get("attacks", {}) for one in after]
    return any(one.get(attack, {}).get("attacker") == OWN_ATTACKER for one in attacks)


def _starts(groups: Sequence[Group], attack: str, kind: str) -> list[dict[float, float]]:
    """The start's curves, each distinct one once: runs share their start."""
    sides = [side for run in _runs(groups) if (side := side_of(run, "before"))]
    distinct: dict[str, dict[float, float]] = {}
    for side in sides:
        points = _by_place(side, attack, kind)
        distinct.setdefault(repr(points), points)
    return list(distinct.values())


def _by_place(side: Side, attack: str, kind: str) -> dict[float, float]:
    return {point["at"]: point["value"] for point in points_of(side, attack, kind)}


def _common(found: Sequence[Mapping[float, float]]) -> list[tuple[float, list[float]]]:
    """The values of all runs at the places that all of them have."""
    measured = [one for one in found if one]
    if not measured:
        return []
    places = sorted(set.intersection(*(set(one) for one in measured)))
    return [(place, [one[place] for one in measured]) for place in places]


def _runs(groups: Sequence[Group]) -> Iterator[Contents]:
    return (run for group in groups for run in group.runs.values())
