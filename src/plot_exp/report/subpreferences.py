"""The seven sub-preferences of the PLOT paper (arXiv 2604.01837) as one table: who is measured how.

A number that was not measured says why; it is never a zero.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plot_exp.report.contents import Contents
from plot_exp.report.measures import number
from plot_exp.report.study.groups import Group, baseline_of
from plot_exp.report.study.tables import Cell, StudyTable

ATTACKS = {
    "zero_shot": "Zero-Shot",
    "sfs": "SFS",
    "pez": "PEZ",
    "gbda": "GBDA",
    "uat": "UAT",
    "gcg": "GCG",
}
TITLE = "The seven sub-preferences"
UNASKED = (
    "Not measured: no benchmark was run on this model; `task=evaluate run=RUN_DIR eval=paper` "
    "runs all of them."
)
BASE = "base"
ABSENT = "not measured"
# A table with more columns is not read; the tables over all settings hold them.
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Item:
    """One number of a sub-preference.

    Attributes:
        key: in metrics.json.
        benchmark: whose section of `eval` measures it.
        short: its name in the figure; empty leaves it to the table.
        top: the upper end of its scale.
    """

    key: str
    label: str
    better: str
    benchmark: str
    short: str = ""
    top: float = 1.0


def _grade(category: str) -> tuple[Item]:
    label = f"MT-Bench, {category}, 1 to 10"
    return (Item(f"eval/mt_bench/{category}", label, "higher", "mt_bench", "MT-Bench", 10.0),)


SUBPREFERENCES: dict[str, tuple[Item, ...]] = {
    "Harmlessness": tuple(
        Item(f"eval/asr/{key}", f"attack success rate, {name}", "lower", "asr", name)
        for key, name in ATTACKS.items()
    ),
    "Helpfulness": (
        Item("eval/reward/score", "reward on HH-RLHF", "higher", "reward"),
        Item(
            "eval/reward/sigmoid",
            "100 × mean sigmoid of the reward",
            "higher",
            "reward",
            "reward",
            100.0,
        ),
        Item("eval/reward/win_rate", "wins against the reference, %", "higher", "reward"),
    ),
    "Humanity": _grade("humanities"),
    "Mathematics": (
        Item("eval/gsm8k/strict", "GSM8K, strict", "higher", "gsm8k"),
        Item("eval/gsm8k/flexible", "GSM8K, flexible", "higher", "gsm8k", "GSM8K"),
        Item("eval/math/accuracy", "MATH", "higher", "math", "MATH"),
    ),
    "Reasoning": _grade("reasoning"),
    "Coding": _grade("coding"),
    "STEM": _grade("stem"),
}


@dataclass(frozen=True)
class Value:
    """A number, its interval over cases (one run) or its range over seeds (several).

    Attributes:
        count: cases of one run, or seeds of several.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


@dataclass
class Column:
    """A model, over its seeds.

    Attributes:
        runs: whose metrics and evaluations are read.
        base: read what was measured before training.
        role: `baseline`, `PLOT`, or empty.
    """

    name: str
    runs: list[Contents]
    base: bool = False
    role: str = ""
    title: str = field(init=False)

    def __post_init__(self) -> None:
        shown = self.role and self.role.casefold() != self.name.casefold()
        self.title = f"{self.name} ({self.role})" if shown else self.name

    def value(self, item: Item) -> Value | None:
        """The number, or None where no run has it."""
        key = f"base/{item.key}" if self.base else item.key
        found = [run.metrics for run in self.runs if run.metrics and key in run.metrics]
        if not found:
            return None
        values = [metrics[key] for metrics in found]
        if len(set(values)) > 1:
            return Value(statistics.fmean(values), min(values), max(values), len(values))
        first, count = found[0], found[0].get(f"{key}/count")
        low, high = first.get(f"{key}/low"), first.get(f"{key}/high")
        return Value(values[0], low, high, None if count is None else int(count))

    def why_absent(self, item: Item) -> str:
        """What a person has to know of a number that is not there."""
        sides = [side for side in self._sides(item.benchmark) if "not_run" in side]
        if sides:
            return str(sides[0]["not_run"])
        if any(self._sides(item.benchmark)):
            return f"{item.benchmark} was run and gave no such number"
        return f"not asked for: eval={item.benchmark} measures it"

    def settings(self, benchmark: str) -> str:
        """What made the benchmark's numbers, as text to compare; empty where there is none."""
        found = {
            json.dumps(side["settings"], sort_keys=True)
            for side in self._sides(benchmark)
            if "settings" in side
        }
        return "\n".join(sorted(found))

    def _sides(self, benchmark: str) -> list[Mapping[str, Any]]:
        side = "before" if self.base else "after"
        entries = [(run.evaluations or {}).get(benchmark) or {} for run in self.runs]
        return [entry[side] for entry in entries if isinstance(entry.get(side), dict)]


def columns_of_run(run: Contents) -> list[Column]:
    """The start and the trained model of one run; one that was only measured stands alone."""
    if run.setting("task") == "evaluate":
        return [Column(str(run.setting("model.name") or "model"), [run])]
    terms = list(run.setting("loss", {}) or {})
    return [Column(BASE, [run], base=True), Column("+".join(terms) or "after training", [run])]


def columns_of_groups(groups: Sequence[Group]) -> list[Column]:
    """The start, then each baseline followed by its variants with further terms."""
    found = [Column(BASE, [run for group in groups for run in group.runs.values()], base=True)]
    for group in _in_pairs(groups):
        role = "PLOT" if "plot" in group.loss.split("+") else ""
        if any(baseline_of(other, groups) is group for other in groups):
            role = "baseline"
        found.append(Column(group.label, list(group.runs.values()), role=role))
    return found


def measured(columns: Sequence[Column]) -> bool:
    """Whether any of the numbers is there."""
    items = [item for items in SUBPREFERENCES.values() for item in items]
    return any(column.value(item) is not None for column in columns for item in items)


def section(run: Contents) -> str:
    """The table for a run's report, or why there is none."""
    columns = columns_of_run(run)
    if run.evaluations is None and not measured(columns):
        if (run.run_dir / "evaluations.json").exists():
            return f"## {TITLE}\n\n{run.left_out('evaluations.json')}"
        return f"## {TITLE}\n\n{UNASKED}"
    return table(columns).markdown()


def table(columns: Sequence[Column]) -> StudyTable:
    """One row a number, one column a model, and under it what is missing and why."""
    shown = columns[: MOST_COLUMNS + 1]
    header = ["", *(column.title for column in shown)]
    rows = []
    for name, items in SUBPREFERENCES.items():
        for item in rows_of(items, shown):
            cells = [_cell(column.value(item)) for column in shown]
            arrow = {"higher": "↑", "lower": "↓"}[item.better]
            rows.append([Cell(f"{name}: {item.label} {arrow}"), *cells])
    return StudyTable("subpreferences", TITLE, " ".join(_notes(shown, columns)), header, rows)


def rows_of(items: Sequence[Item], columns: Sequence[Column]) -> Sequence[Item]:
    """Those of the numbers that any column has; one, for its reason, where none has."""
    found = [item for item in items if any(column.value(item) for column in columns)]
    if found or not items:
        return found
    first = items[0]
    if first.benchmark == "asr":
        first = replace(first, label="attack success rate", short="attacks")
    return [first]


def _in_pairs(groups: Sequence[Group]) -> Iterator[Group]:
    baselines = {id(group): baseline_of(group, groups) for group in groups}
    for group in groups:
        if baselines[id(group)] is None:
            yield group
            yield from (other for other in groups if baselines[id(other)] is group)


def _cell(value: Value | None) -> Cell:
    if value is None:
        return Cell(ABSENT)
    numbers = {"value": value.value, "low": value.low, "high": value.high}
    return Cell(str(value), numbers={**numbers, "count": value.count})


def _notes(shown: Sequence[Column], columns: Sequence[Column]) -> list[str]:
    notes = [
        "Brackets are 95 % intervals over the cases of one run, or the least and the most of "
        "several seeds."
    ]
    if len(shown) < len(columns):
        notes.append(f"{len(columns) - len(shown)} further settings are left out of this table.")
    notes += [f"{name} {why}" for name, why in _differing(shown)]
    absent = [f"{where}: {why}" for where, why in _absent(shown)]
    if absent:
        notes.append(f"{ABSENT.capitalize()}: {'; '.join(absent)}.")
    return notes


def _differing(columns: Sequence[Column]) -> Iterator[tuple[str, str]]:
    """Benchmarks whose settings differ between columns: their numbers do not compare."""
    benchmarks = [item.benchmark for items in SUBPREFERENCES.values() for item in items]
    for benchmark in dict.fromkeys(benchmarks):
        if len({column.settings(benchmark) for column in columns} - {""}) > 1:
            yield (
                benchmark,
                "was run with settings that differ between the columns, so that its numbers do "
                "not compare.",
            )


def _absent(columns: Sequence[Column]) -> Iterator[tuple[str, str]]:
    """Where a number is missing, by reason: `Humanity, Coding (base; dpo)` and the reason."""
    missing: dict[tuple[str, str], list[str]] = {}
    for name, items in SUBPREFERENCES.items():
        for item in rows_of(items, columns):
            for column in columns:
                if column.value(item) is None:
                    names = missing.setdefault((column.why_absent(item), column.title), [])
                    names += [name] if name not in names else []
    together: dict[tuple[str, str], list[str]] = {}
    for (why, title), names in missing.items():
        together.setdefault((why, ", ".join(names)), []).append(title)
    for (why, shared), titles in together.items():
        yield f"{shared} ({', '.join(titles)})", why.rstrip(".")
