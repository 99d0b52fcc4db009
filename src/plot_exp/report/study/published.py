"""Published figures beside the runs' own: always of another setting, and marked so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from plot_exp.report.measures import number
from plot_exp.report.study.cells import summary_cell
from plot_exp.report.study.groups import Group, outside_loss
from plot_exp.report.study.statistics import Summary, summarise
from plot_exp.report.study.tables import Cell, StudyTable, text_cells

FILE = Path(__file__).with_name("published.yaml")
NAME, OWN = "published", "these runs"
NOTE = (
    "Published numbers are of another model, other data and other code than these runs: they show "
    "what was claimed, and neither confirm nor refute a number here, where PLOT is a "
    "reconstruction. Own numbers: mean ± standard deviation over seeds [95 % bootstrap interval of "
    "the mean; from three seeds on]. Own training times are of runs as they came: where runs "
    "shared a machine, these say little."
)


class Figure(BaseModel):
    """One published measure; see the head of `published.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    source: str
    table: str | None
    model: str | None
    data: str | None
    remark: str | None
    metric: str
    measured_by: str
    factor: float
    relative: str | None
    values: dict[str, float]

    @property
    def setting(self) -> str:
        """Where the number stands, and what is known of how it came about."""
        place = f"{self.source}, {self.table or 'table not known here'}"
        known = [self.model or "model not known", self.data or "data not known"]
        return f"{place}: {', '.join(known)}" + (f" ({self.remark})" if self.remark else "")


@cache
def figures() -> tuple[Figure, ...]:
    """Every figure of `published.yaml`."""
    content: Any = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(Figure.model_validate(row) for row in content["figures"])


def table(groups: Sequence[Group]) -> StudyTable | None:
    """Published figures of the losses that were run; None where there are none."""
    rows = [row for figure in figures() for row in _rows(figure, groups)]
    if not rows:
        return None
    header = ["", "published", "published setting", OWN, "their setting"]
    return StudyTable(NAME, "Published, another setting, beside these runs", NOTE, header, rows)


def _rows(figure: Figure, groups: Sequence[Group]) -> Iterator[list[Cell]]:
    for loss, value in figure.values.items():
        if loss == figure.relative:
            continue
        alike = [group for group in groups if group.loss == loss]
        measured = [(group, own) for group in alike if (own := _own(figure, group, groups))]
        published = Cell(number(value), numbers={"value": value})
        for group, own in measured:
            name, setting = f"{figure.title}: {group.label}", _setting(figure, group)
            yield [
                Cell(name),
                published,
                Cell(figure.setting),
                summary_cell(own),
                Cell(setting),
            ]
        if alike and not measured:
            missing = f"not measured in these runs ({figure.measured_by} measures it)"
            yield [
                *text_cells([f"{figure.title}: {loss}"]),
                published,
                *text_cells([figure.setting, missing, ""]),
            ]


def _own(figure: Figure, group: Group, groups: Sequence[Group]) -> Summary | None:
    """The runs' own number in the published unit; a ratio on the seeds that both losses have."""
    found = group.number(figure.metric)
    if figure.relative is not None:
        found = _ratios(found, figure, group, groups)
    values = [figure.factor * value for value in found.values()]
    return summarise(values) if values else None


def _ratios(
    found: dict[int, float], figure: Figure, group: Group, groups: Sequence[Group]
) -> dict[int, float]:
    outside = outside_loss(group)
    for other in groups:
        if other.loss == figure.relative and outside_loss(other) == outside:
            base = other.number(figure.metric)
            return {s: value / base[s] for s, value in found.items() if base.get(s)}
    return {}


def _setting(figure: Figure, group: Group) -> str:
    """Model, data, and for attacks the behaviours and the judge."""
    parts = [str(group.settings.get("model.name")), str(group.settings.get("dataset.name"))]
    if figure.metric.startswith("eval/asr/"):
        runs = group.runs.values()
        after = [(run.evaluations or {}).get("asr", {}).get("after", {}) for run in runs]
        facts = [one.get("facts") or {} for one in after]
        for key, words in (("behaviours", "behaviours of {}"), ("judge", "judged by {}")):
            parts += dict.fromkeys(words.format(one[key]) for one in facts if key in one)
    return ", ".join(parts)
