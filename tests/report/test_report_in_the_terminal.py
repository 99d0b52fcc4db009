"""What `task=report` says in the terminal of more runs than stand side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from plot_exp.config.composition import compose
from plot_exp.report import run as run_report
from plot_exp.workflows import report


def test_numbers_stand_in_the_terminal_and_published_sentences_in_the_files(
    make_run: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in range(7):
        make_run(f"runs/seed={seed}", seed=seed)
    monkeypatch.setattr(run_report, "write", lambda run_dir: None)
    folder = tmp_path / "runs"
    report.run(compose(["task=report", f"runs={folder}"]), tmp_path)
    said = capsys.readouterr().out
    assert "Preferences on held-out examples" in said
    assert "Published" not in said
    assert "## Published" in (folder / "comparison.md").read_text()
    assert "7 finished runs in 1 setting," in said
