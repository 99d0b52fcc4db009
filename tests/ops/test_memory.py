"""How many logits are held: by plan, and as the operating system counts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plot_exp.ops import memory
from plot_exp.ops.memory import HeadPlan, free_bytes

CPU = torch.device("cpu")
POSITIONS, VOCABULARY = 1024, 65536

MEASURE = """
import sys
import torch
from plot_exp.ops.chunked import read_head
from plot_exp.ops.head import Head
from plot_exp.ops.readout import Readout
from plot_exp.ops.scores import Request
from plot_exp.data.collate import collate_padded
from scoring_models import example

positions, vocabulary, chunk = map(int, sys.argv[1:])
ids = [[3] * (positions // 2), [4] * (positions // 2)]
batch = collate_padded([example([1], ids)], 0)
linear = torch.nn.Linear(8, vocabulary, bias=False)
hidden = torch.randn(positions, 8, requires_grad=True)
request = Request(frozenset({("chosen", "batch")}), frozenset({"entropy"}))

def step(chunk):
    head = Head(linear, None, chunk)
    readout = Readout.of(batch, request, head.adjustment, None)
    outputs = read_head(head, hidden, readout)
    sum(one.square().sum() for one in outputs.values()).backward()

def resident(name):
    rows = open("/proc/self/status").read().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(name)) * 1024

torch.randn(64, vocabulary).log_softmax(-1)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
before = resident("VmRSS:")
step(chunk)
print(resident("VmHWM:") - before)
"""


def measured(chunk: int) -> int:
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent / "src")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(POSITIONS), str(VOCABULARY), str(chunk)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is read as Linux counts it"
)
def test_chunks_take_a_fraction_of_what_the_logits_would() -> None:
    logits = POSITIONS * VOCABULARY * 4
    assert measured(64) < logits / 2
    # What it would be otherwise: the logits once, kept between the passes, and one chunk of them.
    assert logits < measured(POSITIONS) < 2.5 * logits


def test_small_logits_are_kept_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: pytest.fail("it was asked"))
    assert HeadPlan.of(100, 8000, torch.float32, CPU).keep


@pytest.mark.parametrize(("free", "keep"), [(2**36, True), (2**31, False)])
def test_large_logits_are_kept_where_they_fit(
    free: int, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    plan = HeadPlan.of(4096, 152_000, torch.float32, CPU)
    assert plan.keep is keep
    assert plan.chunk * 152_000 * 4 <= memory.CHUNK_BYTES["cpu"] < (plan.chunk + 1) * 152_000 * 4


def test_a_chunk_set_by_hand_is_never_exceeded() -> None:
    assert HeadPlan.of(1000, 152_000, torch.float32, CPU, 7).chunk == 7
    assert not HeadPlan.of(8, 10, torch.float32, CPU, 7).keep
    assert HeadPlan.of(7, 10, torch.float32, CPU, 7).keep


def test_the_free_memory_is_what_the_system_and_the_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:  800 kB\nHuge: 0\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_bytes(CPU) == 800 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) == 800 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("450000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 30000\n")
    assert free_bytes(CPU) == 80_000
    (tmp_path / "memory.current").write_text("600000\n")
    assert free_bytes(CPU) == 0


def test_here_some_memory_is_free() -> None:
    assert 0 < free_bytes(CPU) < 2**50
