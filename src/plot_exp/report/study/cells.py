"""Numbers over seeds as cells of a table."""

from __future__ import annotations

from plot_exp.report.measures import number
from plot_exp.report.outcome import signed
from plot_exp.report.study.statistics import Difference, Summary
from plot_exp.report.study.tables import Cell


def summary_cell(summary: Summary | None, bold: bool = False, runs: int = 0) -> Cell:
    """Mean ± spread [interval]; how many of the row's `runs` have the number, where not all do."""
    if summary is None:
        return Cell("not measured")
    low, high = summary.low, summary.high
    largest = max(map(abs, (summary.mean, low or 0.0, high or 0.0)))
    text = number(summary.mean, largest)
    if summary.spread is not None:
        text += f" ± {number(summary.spread, largest)}"
    if low is not None and high is not None:
        text += f" [{number(low, largest)}, {number(high, largest)}]"
    text += _lacking(summary.count, runs)
    numbers = {
        "mean": summary.mean,
        "spread": summary.spread,
        "low": summary.low,
        "high": summary.high,
        "count": float(summary.count),
    }
    return Cell(text, bold, numbers)


def difference_cell(difference: Difference | None, runs: int = 0) -> Cell:
    """Signed mean [interval], bold where the interval leaves zero out; `runs` as above."""
    if difference is None:
        return Cell("not measured")
    low, high = difference.low, difference.high
    largest = max(map(abs, (difference.mean, low or 0.0, high or 0.0)))
    text = signed(difference.mean, largest)
    if low is not None and high is not None:
        text += f" [{signed(low, largest)}, {signed(high, largest)}]"
    text += _lacking(difference.count, runs)
    numbers = {
        "mean": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "count": float(difference.count),
    }
    return Cell(text, difference.clear, numbers)


def _lacking(count: int, runs: int) -> str:
    return f" ({count} of {runs} runs)" if count < runs else ""
