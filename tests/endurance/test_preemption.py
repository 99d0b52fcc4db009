"""A signal lets the step in hand be finished and saved, and the run goes on to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from endurance_runs import Run, assert_same_weights
from plot_exp import interruption
from plot_exp.interruption import Interrupted, watching


def send(number: signal.Signals, at: int) -> object:
    """Sends a signal to this process in the middle of step `at`."""

    def disturb(run: Run, step: int) -> None:
        if step == at and run.trainer.global_step == at - 1:
            os.kill(os.getpid(), number)

    return disturb


@pytest.fixture(autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """A shell's background job is started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def one_signal_may_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step has several passes, each of which sends it."""
    monkeypatch.setattr(interruption, "SAME_SIGNAL_SECONDS", 60.0)


@pytest.mark.usefixtures("one_signal_may_repeat")
@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 138), ("SIGUSR2", 140)]
)
def test_the_step_in_hand_is_finished_and_saved(name: str, code: int, tmp_path: Path) -> None:
    before = signal.getsignal(signal.Signals[name])
    run = Run(tmp_path / "run", disturb=send(signal.Signals[name], at=3))  # type: ignore[arg-type]
    with pytest.raises(Interrupted) as raised, watching(requeue=False):
        run.fit()
    assert raised.value.exit_code == code
    assert "after step 3" in raised.value.note
    assert run.module.completed_steps == 3
    assert run.saved() == [3]
    assert sorted(run.losses()) == [1, 2, 3]
    assert signal.getsignal(signal.Signals[name]) == before

    rest = Run(tmp_path / "run").fit()
    whole = Run(tmp_path / "whole").fit()
    assert_same_weights(whole, rest)
    assert {**run.losses(), **rest.losses()} == whole.losses()


@pytest.mark.usefixtures("one_signal_may_repeat")
def test_a_signal_in_the_last_step_saves_it_and_ends(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=3, disturb=send(signal.SIGTERM, at=3))  # type: ignore[arg-type]
    with pytest.raises(Interrupted), watching(requeue=False):
        run.fit()
    assert run.saved() == [3]
    again = Run(tmp_path, steps=3).fit()
    assert again.module.completed_steps == 3
    assert again.logged == {}
    assert_same_weights(again, run)


def test_outside_of_training_a_signal_ends_at_once() -> None:
    with pytest.raises(Interrupted, match="SIGTERM"), watching(requeue=False):
        os.kill(os.getpid(), signal.SIGTERM)


def test_after_training_a_signal_ends_at_once_again(tmp_path: Path) -> None:
    with watching(requeue=False):
        Run(tmp_path, steps=2).fit()
        with pytest.raises(Interrupted, match="SIGUSR1"):
            os.kill(os.getpid(), signal.SIGUSR1)


def test_handlers_of_others_are_left_alone() -> None:
    """As submitit's, which requeues the jobs of a sweep by itself."""
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("theirs"))
    try:
        with watching(requeue=False):
            os.kill(os.getpid(), signal.SIGUSR2)
        assert heard == ["theirs"]
    finally:
        signal.signal(signal.SIGUSR2, before)


SHARED = """
import os, signal, sys, time
from types import SimpleNamespace
import torch.distributed as dist
from plot_exp.interruption import Interrupted, watching
from plot_exp.training.preemption import Preemption

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
trainer = SimpleNamespace(world_size=2, global_step=0)
saved = []
callback = Preemption(lambda _: saved.append(trainer.global_step))
try:
    with watching(requeue=False):
        callback.on_train_start(trainer, None)
        for step in range(1, 9):
            trainer.global_step = step
            if rank == 1 and step == 4:
                os.kill(os.getpid(), signal.SIGUSR1)
            callback.on_train_batch_end(trainer, None)
except Interrupted as ended:
    print(saved, ended.exit_code)
"""


@pytest.mark.slow
def test_one_process_that_is_asked_ends_all_after_the_same_step(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["[4] 138\n"] * 2


ENDLESS = """
import time
from plot_exp.interruption import watching
with watching(requeue=False) as watch:
    watch.defer()
    print("begun", flush=True)
    while True:
        time.sleep(0.05)
"""


def test_a_second_signal_ends_a_step_that_takes_too_long() -> None:
    """What comes within a second is the same signal once more, as launchers pass it on."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(interruption.SAME_SIGNAL_SECONDS)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    assert process.communicate()[1].count("a second signal ends at once") == 1
