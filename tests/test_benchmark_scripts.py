"""The benchmark scripts run, in their smallest form; their tables are not written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def output_of(script: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(text: str) -> list[list[str]]:
    """The cells of a finished table's rows, header and rule included."""
    return [line.strip("| ").split(" | ") for line in text.split("\n") if line.startswith("| ")]


@pytest.mark.slow
def test_scaling_in_its_smallest_form() -> None:
    text = output_of("scaling.py", "--small").split("# Scoring as")[1]
    assert [row[-1] for row in rows(text)[-5:]] == ["1.00", "1.33", "1.60", "1.78", "1.88"]
    assert text.count("R²") == 4


@pytest.mark.slow
def test_a_7b_shape_in_small() -> None:
    small = ("--small", "--batch", "2", "--steps", "1", "--lengths", "48", "--cases", "lora")
    found = rows(output_of("gpu.py", *small).split("# The GPU's benchmark")[1])
    assert [row[2] for row in found[1:]] == ["`dpo`", "`dpo+plot`"]
    assert all(float(row[3].replace(",", "")) > 0 for row in found[1:])
