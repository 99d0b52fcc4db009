"""The closing table, and runs side by side."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from plot_exp.config.losses import DPOConfig
from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.report import curves, tokens
from plot_exp.report.terminal import closing_table
from plot_exp.workflows import report

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (curves, tokens):
        monkeypatch.setattr(room, "save", lambda figure, folder, file: None)


def config(runs: Path | None) -> Config:
    return Config.model_validate(
        {
            "task": "report",
            "loss": {"dpo": DPOConfig()},
            "cache_dir": "cache",
            "runs": None if runs is None else str(runs),
        }
    )


def test_closing_table_in_a_plain_pipe(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "report.md").write_text("x")
    pipe = io.StringIO()
    closing_table(run_dir, Console(file=pipe, width=80))
    text = pipe.getvalue()
    (line,) = [line for line in text.splitlines() if "Reward accuracy" in line]
    assert [cell.strip() for cell in line.split("│")[2:6]] == ["280", "0.500", "0.832", "+0.332"]
    assert str(run_dir / "report.md") in text
    assert "\x1b" not in text


def test_closing_table_without_numbers_says_so(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "metrics.json").unlink()
    pipe = io.StringIO()
    closing_table(run_dir, Console(file=pipe, width=80))
    assert "Nothing was measured" in pipe.getvalue()
    assert str(run_dir) in pipe.getvalue().replace("\n", "")


def test_runs_side_by_side(make_run: MakeRun, tmp_path: Path) -> None:
    for name, seed in (("sweep/seed=0", 0), ("sweep/seed=1", 1)):
        run_dir = make_run(name, seed)
        for other in ("wandb/files", ".hydra"):
            (run_dir / other).mkdir(parents=True)
            (run_dir / other / "config.yaml").write_text("a: 1")
    (run_dir / "metrics.json").write_text('{"val/reward_accuracy": 0.625}')
    report.run(config(tmp_path / "sweep"), tmp_path / "unused")
    text = (tmp_path / "sweep" / "comparison.md").read_text()
    assert "# 2 runs side by side" in text
    assert "| seed | 0 | 1 |" in text
    assert "| Reward accuracy | 0.832 \\[0.788, 0.876\\] | 0.625 |" in text
    assert "| Harmful demo requests answered | 0.100 \\[0.000, 0.231\\] | not measured |" in text
    over_all, _, single = text.partition("## Single runs, after training, by sub-preference")
    assert "Reward accuracy, Coding" in single
    assert "Reward accuracy, Coding" not in over_all
    assert (run_dir / "report.md").exists()
    assert not (tmp_path / "unused").exists()


def test_one_run_and_an_unfinished_one(make_run: MakeRun, tmp_path: Path) -> None:
    run_dir = make_run()
    (run_dir / "metrics.json").unlink()
    report.run(config(run_dir), tmp_path)
    text = (run_dir / "comparison.md").read_text()
    assert "*Nothing was measured.*" in text
    assert "`metrics.json`: not there" in text


def test_differing_settings_leave_out_what_explains_nothing(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for name in ("all/a", "all/b"):
        run_dir = make_run(name)
        settings = yaml.safe_load((run_dir / "config.yaml").read_text())
        settings |= {"output_dir": name, "logger": {"name": name}, "name": name}
        (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))
    report.run(config(tmp_path / "all"), tmp_path)
    assert "these runs had the same settings" in (tmp_path / "all" / "comparison.md").read_text()


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    for runs, message in (
        (None, "needs runs="),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "no run was found"),
    ):
        with pytest.raises(UserError, match=message):
            report.run(config(runs), tmp_path)
