"""Comparing expressions comes to an end, whatever they are."""

from __future__ import annotations

import time

import pytest

from plot_exp.judges import equivalence
from plot_exp.judges.answers import compare
from plot_exp.judges.equivalence import Checker


@pytest.fixture(scope="module")
def checker():
    one = Checker()
    assert one("0.5", r"\frac{2}{4}", 60) is True
    yield one
    one._kill()


@pytest.mark.parametrize("slow", ["9^{9^{9^9}}", "10!!!!"])
def test_an_expression_without_end_is_undecided_and_the_next_one_is_compared(checker, slow):
    started = time.monotonic()
    assert checker("3", slow, 0.5) is None
    assert time.monotonic() - started < 10
    assert checker("0.5", r"\frac{1}{2}", 60) is True
    assert checker("0.5", r"\frac{1}{3}", 60) is False


@pytest.mark.parametrize(
    ("gold", "candidate"),
    [("", ""), ("\\", "{"), ('"', "\n[1]\n"), ("\ud800", "é"), ("true", "false"), ("1", "}{")],
)
def test_odd_texts_neither_break_it_nor_put_it_out_of_step(checker, gold, candidate):
    assert checker(gold, candidate, 60) in (True, False)
    assert checker("2", "1+1", 60) is True


def test_long_texts_are_not_worth_the_time(checker):
    assert checker("1", "1+" * 2000 + "1") is False


def test_what_looks_the_same_takes_no_process(monkeypatch):
    monkeypatch.setattr(equivalence, "WORKER", "nowhere")
    assert compare(r"\dfrac{1}{2}", r"\frac{1}{2}") is True
