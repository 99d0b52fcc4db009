"""Numbers over seeds as cells of a table."""

from __future__ import annotations

from plot_exp.report.measures import number
from plot_exp.report.outcome import signed
from plot_exp.report.study.statistics import Difference, Summary
from plot_exp.report.study.tables import Cell


def summary_cell(summary: Summary | None, bold: bool = False) -> Cell:
    """Mean ± spread [interval]."""
    if summary is None:
        return Cell("not measured")
    text = number(summary.mean)
    if summary.spread is not None:
        text += f" ± {number(summary.spread)}"
    if summary.low is not None and summary.high is not None:
        text += f" [{number(summary.low)}, {number(summary.high)}]"
    numbers = {
        "mean": summary.mean,
        "spread": summary.spread,
        "low": summary.low,
        "high": summary.high,
        "count": float(summary.count),
    }
    return Cell(text, bold, numbers)


def difference_cell(difference: Difference | None) -> Cell:
    """Signed mean [interval], bold where the interval leaves zero out."""
    if difference is None:
        return Cell("not measured")
    text = signed(difference.mean)
    if difference.low is not None and difference.high is not None:
        text += f" [{signed(difference.low)}, {signed(difference.high)}]"
    numbers = {
        "mean": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "count": float(difference.count),
    }
    return Cell(text, difference.clear, numbers)
