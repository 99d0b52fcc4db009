"""task=evaluate measures both sides on the same prompts and leaves the run's files in accord."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.mark.slow
def test_other_settings_measure_before_and_after_anew(
    quick_run: Path, tmp_path: Path, run_cli
) -> None:
    run = tmp_path / "run"
    shutil.copytree(quick_run, run)
    before = json.loads((run / "metrics.json").read_text())

    done = run_cli(
        ["task=evaluate", f"run={run}", "eval.generations=14", "eval.max_new_tokens=5"],
        tmp_path,
    )

    assert done.returncode == 0, done.stderr
    after = json.loads((run / "metrics.json").read_text())
    for prefix in ("", "base/"):
        assert after[f"{prefix}eval/response_length/count"] == 14
        assert after[f"{prefix}eval/response_length"] <= 5
        same = f"{prefix}val/logp_accuracy/sum"
        assert after[same] == pytest.approx(before[same])
    assert len((run / "samples.jsonl").read_text().splitlines()) == 14
    assert after["train/steps"] == before["train/steps"]


@pytest.mark.slow
def test_damaged_numbers_are_named(quick_run: Path, tmp_path: Path, run_cli) -> None:
    run = tmp_path / "run"
    shutil.copytree(quick_run, run)
    (run / "metrics.json").write_text("{")

    done = run_cli(["task=evaluate", f"run={run}"], tmp_path)

    assert done.returncode == 2
    assert "metrics.json is damaged" in done.stderr
    assert not (tmp_path / "outputs").exists()
