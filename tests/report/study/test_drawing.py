"""How a start far from all settings is shown."""

from __future__ import annotations

from plot_exp.report.study.drawing import mark_start
from plot_exp.report.style import panels


def test_a_start_far_away_stands_at_the_edge_and_leaves_the_differences_readable() -> None:
    _, (axis,) = panels(1, 1)
    values = [0.83, 0.84, 0.85]
    axis.plot(values, [0, 1, 2], "o")
    mark_start(axis, 0.5, (-0.5, 2.5), values)
    assert [text.get_text() for text in axis.texts] == ["◂ start 0.500"]
    assert axis.get_xlim()[0] > 0.8


def test_a_start_near_the_settings_is_a_line() -> None:
    _, (axis,) = panels(1, 1)
    values = [0.83, 0.84, 0.85]
    axis.plot(values, [0, 1, 2], "o")
    mark_start(axis, 0.82, (-0.5, 2.5), values)
    assert not axis.texts
    assert list(axis.lines[-1].get_xdata()) == [0.82, 0.82]


def test_a_start_above_stands_at_the_right() -> None:
    _, (axis,) = panels(1, 1)
    mark_start(axis, 9.0, (-0.5, 0.5), [0.1, 0.2])
    assert axis.texts[0].get_text() == "start 9.000 ▸"
    assert axis.texts[0].get_ha() == "right"
