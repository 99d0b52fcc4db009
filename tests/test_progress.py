"""Bars yield every item and stay out of logs."""

from __future__ import annotations

import sys

import pytest

from plot_exp.progress import choose, shown, silent


@pytest.mark.parametrize("progress", [True, False])
def test_every_item_comes_in_order(progress):
    assert list(choose(progress)(range(5), "counting")) == list(range(5))


def test_silent_shows_nothing(capsys):
    list(silent(range(3), "counting"))
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_are_a_few_lines(capsys):
    list(shown(range(300), "counting"))
    found = capsys.readouterr()
    assert found.out == ""
    lines = found.err.splitlines()
    assert lines[0] == "counting ..."
    assert [line.split(",")[0] for line in lines[1:]] == [
        f"counting: {done} of 300" for done in range(30, 300, 30)
    ]


def test_a_short_way_is_one_line(capsys):
    list(shown(range(40), "counting", 40))
    assert capsys.readouterr().err == "counting ...\n"


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(shown(range(3), "counting", 3)) == [0, 1, 2]
    assert "counting" in capsys.readouterr().err
