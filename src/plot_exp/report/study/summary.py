"""The tables of a study: outcomes over seeds, differences to the baseline, and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plot_exp.report.measures import KNOWN, Measure
from plot_exp.report.study import attack_curves, published
from plot_exp.report.study.cells import difference_cell, summary_cell
from plot_exp.report.study.groups import (
    Group,
    all_measures,
    baseline_of,
    by_start,
    implied,
    short,
    start_settings,
)
from plot_exp.report.study.statistics import Summary, paired, summarise
from plot_exp.report.study.tables import Cell, StudyTable, text_cells

# A share of right answers says nothing where the start gets nearly none, or nearly all.
MEASURABLE = (0.05, 0.95)
CORRECTNESS = ("eval/exact_match", "eval/gsm8k/", "eval/math/")
COST = {
    "train/pairs_per_second": "pairs/s",
    "train/peak_memory_gb": "peak memory, GB",
    "train/seconds": "training, s",
    "train/steps": "steps",
}
OUTCOMES_NOTE = (
    "Mean ± standard deviation over seeds [95 % bootstrap interval of the mean; from three seeds "
    "on]. Bold: better than every other row of its start, as the 95 % t interval of the "
    "difference on the same seeds says. Intervals are over seeds; which examples are held out is "
    "the same for all."
)
DIFFERENCES_NOTE = (
    "Mean difference on the same seeds [95 % interval by Student's t; from two seeds on]; bold "
    "where the interval leaves zero out. No interval where all seeds differ by the same. The "
    "baseline is the same loss without its added terms."
)
# What 95 % intervals leave out by chance, of any number of them.
BY_CHANCE = 0.05


def tables(groups: Sequence[Group]) -> list[StudyTable]:
    """Every table that the runs have numbers for."""
    measures = all_measures(groups)
    themes = {
        ("preferences", "Preferences on held-out examples"): [
            m for m in measures if m.category is None and m.key.startswith("val/")
        ],
        ("answers", "Answers to held-out prompts"): [
            m for m in measures if m.in_summary and m.key.startswith("eval/")
        ],
    }
    found = []
    for (name, title), chosen in themes.items():
        shown = [m for m in chosen if m.key in KNOWN or m.key.startswith("eval/")]
        if shown:
            found.append(_outcomes(name, title, groups, shown))
            if differences := _differences(name, title, groups, shown):
                found.append(differences)
    further = (attack_curves.table(groups), _cost(groups), published.table(groups))
    return found + [table for table in further if table is not None]


def _outcomes(
    name: str, title: str, groups: Sequence[Group], measures: Sequence[Measure]
) -> StudyTable:
    header = ["", "runs", *(_title(measure) for measure in measures)]
    rows, left_out = [], []
    starts = by_start(groups)
    for alike in starts:
        before = [_start(alike, measure) for measure in measures]
        which = start_label(alike, starts)
        cells = (summary_cell(summary) for summary in before)
        rows.append([Cell("before training" + which), Cell(""), *cells])
        columns = []
        for measure, start in zip(measures, before, strict=True):
            if not measurable(measure, start):
                left_out.append(_title(measure) + which)
                columns.append([Cell("not measurable") for _ in alike])
                continue
            columns.append(_column(alike, measure))
        for place, group in enumerate(alike):
            cells = (column[place] for column in columns)
            rows.append([Cell(group.label), Cell(str(len(group.runs))), *cells])
    note = OUTCOMES_NOTE
    if left_out:
        note += (
            f" Not measurable at this size: {', '.join(left_out)}; the start lies outside "
            f"{MEASURABLE[0]:.0%} to {MEASURABLE[1]:.0%}."
        )
    return StudyTable(name, title, note, header, rows)


def start_label(alike: Sequence[Group], starts: Sequence[Sequence[Group]]) -> str:
    """What tells a start from the others, as `, dataset=gsm8k`; nothing where there is one."""
    firsts = [one[0] for one in starts]
    keys = {key for group in firsts for key in start_settings(group)}
    telling = [
        f"{short(key)}={alike[0].settings.get(key)}"
        for key in sorted(keys)
        if not implied(key, firsts) and len({str(group.settings.get(key)) for group in firsts}) > 1
    ]
    return "".join(f", {text}" for text in telling)


def measurable(measure: Measure, start: Summary | None) -> bool:
    """Whether a share of right answers starts where training could move it either way."""
    if not measure.key.startswith(CORRECTNESS) or start is None:
        return True
    return MEASURABLE[0] <= start.mean <= MEASURABLE[1]


def _column(groups: Sequence[Group], measure: Measure) -> list[Cell]:
    values = [group.values(measure.key, measure.category) for group in groups]
    best = _clearly_best(values, measure.better)
    return [
        summary_cell(
            summarise(list(found.values())) if found else None, place == best, len(group.runs)
        )
        for place, (group, found) in enumerate(zip(groups, values, strict=True))
    ]


def _clearly_best(values: Sequence[Mapping[int, float]], better: str) -> int | None:
    """The row of a start that beats each other one beyond doubt; None where none does."""
    present = [place for place, found in enumerate(values) if found]
    if not better or len(present) < 2:
        return None
    sign = 1.0 if better == "higher" else -1.0
    means = {place: sign * summarise(list(values[place].values())).mean for place in present}
    best = max(present, key=means.__getitem__)
    for other in present:
        difference = paired(values[best], values[other])
        if other != best and (
            difference is None or not difference.clear or sign * difference.mean <= 0
        ):
            return None
    return best


def _differences(
    name: str, title: str, groups: Sequence[Group], measures: Sequence[Measure]
) -> StudyTable | None:
    rows = [
        row
        for alike in by_start(groups)
        for group in alike
        if (row := _difference(group, alike, measures)) is not None
    ]
    if not rows:
        return None
    header = ["", "seeds in common", *(_title(measure) for measure in measures)]
    note = f"{DIFFERENCES_NOTE} {_by_chance(rows)}".rstrip()
    return StudyTable(
        f"{name}_against_baseline", f"{title}: against the baseline", note, header, rows
    )


def _by_chance(rows: Sequence[Sequence[Cell]]) -> str:
    """How many intervals are clear, and how many would be if nothing differed."""
    judged = [cell for row in rows for cell in row if cell.numbers.get("low") is not None]
    if not judged:
        return ""
    return (
        f"{sum(cell.bold for cell in judged)} of {len(judged)} intervals leave zero out; about "
        f"{len(judged) * BY_CHANCE:.1f} would by chance, if nothing differed. None is widened for "
        "their number."
    )


def _difference(
    group: Group, alike: Sequence[Group], measures: Sequence[Measure]
) -> list[Cell] | None:
    """A group's row beside its baseline of the same start; None where there is none."""
    baseline = baseline_of(group, alike)
    if baseline is None:
        return None
    cells = []
    common = len(set(group.runs) & set(baseline.runs))
    for measure in measures:
        if not measurable(measure, _start(alike, measure)):
            cells.append(Cell("not measurable"))
            continue
        sides = [one.values(measure.key, measure.category) for one in (group, baseline)]
        cells.append(difference_cell(paired(*sides), common))
    return [Cell(f"{group.label} − {baseline.label}"), Cell(str(common)), *cells]


def _cost(groups: Sequence[Group]) -> StudyTable | None:
    keys = [key for key in COST if any(group.number(key) for group in groups)]
    if not keys:
        return None
    rows = []
    for group in groups:
        found = [group.number(key) for key in keys]
        cells = [
            summary_cell(summarise(list(one.values())) if one else None, runs=len(group.runs))
            for one in found
        ]
        rows.append([*text_cells([group.label, str(len(group.runs))]), *cells])
    note = (
        "Mean ± standard deviation [interval] over the runs as they came; where runs shared a "
        "machine, their rates say little. benchmarks/ compares costs in turn in one run."
    )
    return StudyTable("cost", "Cost", note, ["", "runs", *(COST[key] for key in keys)], rows)


def _start(groups: Sequence[Group], measure: Measure) -> Summary | None:
    """The measure before training, each seed once; of one model for all seeds just its number."""
    by_seed: dict[tuple[int, float], float] = {}
    for group in groups:
        for seed, value in group.values(measure.key, measure.category, base=True).items():
            by_seed[seed, value] = value
    if not by_seed:
        return None
    values = list(by_seed.values())
    return summarise(values if len(set(values)) > 1 else values[:1])


def _title(measure: Measure) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(measure.better, "")
    label = measure.label if measure.category is None else f"{measure.label}, {measure.category}"
    return label + arrow
