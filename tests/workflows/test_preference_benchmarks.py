"""Judged benchmarks from the command line: a run, its start, a judge at a server, one report."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_server import Seen, chat, serving
from reward_models import save_oasst

RunCli = Callable[..., subprocess.CompletedProcess[str]]
SHORT = [
    "eval.fluency=null",
    "eval.preferences=false",
    "eval.generations=0",
    "eval.reward.limit=6",
    "eval.reward.agreement=6",
    "eval.reward.max_new_tokens=8",
    "eval.mt_bench.limit=8",
    "eval.mt_bench.max_new_tokens=8",
    "eval.alpaca_eval.limit=10",
    "eval.alpaca_eval.max_new_tokens=8",
    "logger=none",
    "trainer.progress=false",
]


def data() -> str:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return folder


def judge(seen: Seen, number: int) -> dict[str, Any]:
    """Grades every answer 6, and thinks the first of two better by three to one."""
    if not seen.body.get("top_logprobs"):
        return chat("Well. Rating: [[6]]")
    top = [{"token": t, "logprob": math.log(p)} for t, p in (("m", 0.6), ("M", 0.2))]
    content = [{"token": "m", "logprob": math.log(0.6), "top_logprobs": top}]
    return chat("m", logprobs={"content": content})


@pytest.mark.slow
def test_values_of_a_run_and_its_start(quick_run: Path, run_cli: RunCli, tmp_path: Path) -> None:
    folder = data()
    shutil.copytree(quick_run, tmp_path / "run")
    save_oasst(tmp_path / "rewards")
    with serving(judge) as server:
        command = [
            "task=evaluate",
            "run=run",
            "eval=values",
            "eval.reward.model=rewards",
            f"eval.judge.url={server.url}",
            "eval.judge.model=judge",
            *SHORT,
        ]
        cache = f"cache_dir={tmp_path / 'cache'}"
        done = run_cli([*command, cache], tmp_path, PLOT_EXP_DATA=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        asked = len(server.seen)
        again = run_cli([*command, cache], tmp_path, PLOT_EXP_DATA=folder)
        assert again.returncode == 0, again.stdout + again.stderr
        assert len(server.seen) == asked > 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for side in ("", "base/"):
        assert metrics[f"{side}eval/mt_bench/score"] == 6.0
        assert metrics[f"{side}eval/mt_bench/humanities/count"] == 2
        assert metrics[f"{side}eval/alpaca_eval/win_rate/count"] == 10
        # Three to one for whichever stands first.
        assert metrics[f"{side}eval/alpaca_eval/win_rate"] % 5 == pytest.approx(0)
        assert 0 < metrics[f"{side}eval/reward/sigmoid"] < 100
    assert metrics["base/eval/reward/win_rate"] == 50.0
    assert metrics["eval/mt_bench/against_start/win_rate"] == 0.5
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Humanity: MT-Bench, humanities" in report
    assert "(plots/subpreferences.png)" in report
    rows = (tmp_path / "run" / "evals" / "mt_bench.jsonl").read_text().splitlines()
    assert len(rows) == 16
    assert {json.loads(row)["verdict"] for row in rows} == {"6"}


@pytest.mark.slow
def test_published_annotations_from_the_command_line(run_cli: RunCli, tmp_path: Path) -> None:
    """No model is loaded for them: an endpoint names one that is never asked."""
    file = Path(data(), "alpaca_eval", "vicuna-7b-v1.5", "annotations.json")
    done = run_cli(
        [
            "task=evaluate",
            "eval=alpaca_eval",
            f"eval.alpaca_eval.annotations={file}",
            "eval.endpoint.url=http://localhost:9/v1",
            "eval.endpoint.model=vicuna-7b-v1.5",
            "logger=none",
            "hydra.run.dir=out",
        ],
        tmp_path,
        PLOT_EXP_DATA=data(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["eval/alpaca_eval/win_rate"] == pytest.approx(4.797493939167703, abs=1e-8)
    assert metrics["eval/alpaca_eval/lc_win_rate"] == pytest.approx(7.616892731870527, abs=1e-4)
