"""A line now and then that says how far a run is, in a log without a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from endurance_runs import Run
from plot_exp.training.heartbeat import Heartbeat, duration


class Clock:
    """Ten seconds a reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10.0
        return self.now


def test_a_line_now_and_then_with_rates_and_what_is_left(tmp_path: Path) -> None:
    """Steps end at 20, 30, ... s after a start at 10 s; the second line is due after 25 s."""
    lines: list[str] = []
    beat = Heartbeat(6, seconds=25.0, say=lines.append, clock=Clock())
    run = Run(tmp_path, callbacks=[beat]).fit()
    steps = [int(re.match(r"training: step (\d+) of 6", line)[1]) for line in lines]  # type: ignore[index]
    assert steps == [1, 4, 6]
    loss = run.losses()[4]
    batches = [batch for step in (1, 2, 3) for batch in run.loader.microbatches(step)]
    pairs = sum(len(batch.responses.pairs) for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    assert f"loss {loss:.3f}" in lines[1]
    assert f"{pairs / 30:.1f} pairs/s, {tokens / 30:,.0f} tokens/s" in lines[1]
    assert "GB at most, about 20 s left" in lines[1]
    assert "(100 %)" in lines[2]
    assert "left" not in lines[2]


def test_a_resumed_run_counts_its_own_steps_alone(tmp_path: Path) -> None:
    class EndedError(Exception):
        pass

    def end(run: Run, step: int) -> None:
        if step == 5:
            raise EndedError

    with pytest.raises(EndedError):
        Run(tmp_path, disturb=end, checkpoint_every=4).fit()
    lines: list[str] = []
    Run(tmp_path, callbacks=[Heartbeat(6, 1e9, lines.append, Clock())]).fit()
    assert [line.split(",")[0] for line in lines] == [
        "training: step 5 of 6 (83 %)",
        "training: step 6 of 6 (100 %)",
    ]
    assert "about 10 s left" in lines[0]


def test_other_processes_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    run = Run(tmp_path, steps=2, callbacks=[Heartbeat(2, 1e-9, lines.append)])
    monkeypatch.setattr(type(run.trainer), "is_global_zero", False)
    run.fit()
    assert lines == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3599, "1 h 0 min"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
