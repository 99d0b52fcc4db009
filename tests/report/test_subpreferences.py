"""The seven sub-preferences side by side: numbers where they were measured, reasons elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plot_exp.report import compare, contents, subpreferences
from plot_exp.report import run as run_report
from plot_exp.report.study.groups import grouped
from plot_exp.report.subpreferences import ABSENT, SUBPREFERENCES, columns_of_groups, columns_of_run

MakeRun = Callable[..., Path]
NUMBERS = {
    "eval/asr/gcg": 0.4,
    "eval/reward/sigmoid": 61.5,
    "eval/mt_bench/humanities": 6.25,
    "eval/mt_bench/stem": 5.5,
    "eval/gsm8k/flexible": 0.31,
}
NOT_RUN = "MATH needs its published files: name their folder"


def evaluated(
    run_dir: Path, terms: tuple[str, ...], seed: int = 0, shift: float = 0.0, limit: int = 9
) -> Path:
    """Adds benchmark numbers to a finished run, MATH having been refused."""
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    known = {"dpo": {"weight": 1.0, "beta": 0.1}, "plot": {"alpha": 1.0}}
    config |= {"loss": {term: known[term] for term in terms}, "seed": seed}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for key, value in NUMBERS.items():
        metrics |= {f"base/{key}": value, key: value + shift, f"{key}/count": 9.0}
        metrics |= {f"{key}/low": value + shift - 0.1, f"{key}/high": value + shift + 0.1}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    side: dict[str, Any] = {"settings": {"limit": limit}, "notes": [], "answers": 9}
    names = ("asr", "reward", "mt_bench", "gsm8k")
    found: dict[str, Any] = {name: {"before": side, "after": side} for name in names}
    found["math"] = {"before": {"not_run": NOT_RUN}, "after": {"not_run": NOT_RUN}}
    (run_dir / "evaluations.json").write_text(json.dumps(found))
    return run_dir


def rows(table: Any) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_every_sub_preference_has_a_row_and_what_is_missing_a_reason(make_run: MakeRun) -> None:
    run = contents.read(evaluated(make_run(), ("dpo", "plot"), shift=0.05))
    table = subpreferences.table(columns_of_run(run))
    assert table.header == ["", "base", "dpo+plot"]
    found = rows(table)
    assert list(SUBPREFERENCES) == list(dict.fromkeys(name.split(":")[0] for name in found))
    assert found["Harmlessness: attack success rate, GCG ↓"] == ["0.400", "0.450 [0.350, 0.550]"]
    assert found["Humanity: MT-Bench, humanities, 1 to 10 ↑"][0] == "6.250"
    assert found["Coding: MT-Bench, coding, 1 to 10 ↑"] == [ABSENT, ABSENT]
    assert "Coding, Reasoning" in table.note or "Reasoning, Coding" in table.note
    assert "mt_bench was run and gave no such number" in table.note
    # Of attacks that nobody ran there is no row.
    assert not any("SFS" in name for name in found)


def test_a_refused_benchmark_gives_its_own_reason(make_run: MakeRun) -> None:
    run_dir = evaluated(make_run(), ("dpo",))
    metrics = json.loads((run_dir / "metrics.json").read_text())
    kept = {key: value for key, value in metrics.items() if "gsm8k" not in key}
    (run_dir / "metrics.json").write_text(json.dumps(kept))
    item = next(one for one in SUBPREFERENCES["Mathematics"] if one.benchmark == "math")
    for column in columns_of_run(contents.read(run_dir)):
        assert column.value(item) is None
        assert column.why_absent(item) == NOT_RUN


def test_the_report_of_a_run_shows_table_and_figure(make_run: MakeRun) -> None:
    run_dir = evaluated(make_run(), ("dpo", "plot"))
    run_report.write(run_dir)
    text = (run_dir / "report.md").read_text()
    assert "## The seven sub-preferences" in text
    assert "(plots/subpreferences.png)" in text
    assert (run_dir / "plots" / "subpreferences.png").stat().st_size > 10_000


def test_without_benchmarks_the_report_says_how_to_run_them(make_run: MakeRun) -> None:
    run_dir = make_run()
    run_report.write(run_dir)
    text = (run_dir / "report.md").read_text()
    assert "no benchmark was run on this model; `task=evaluate" in text
    assert not (run_dir / "plots" / "subpreferences.png").exists()
    (run_dir / "evaluations.json").write_text("{")
    run_report.write(run_dir)
    assert "`evaluations.json`: is damaged" in (run_dir / "report.md").read_text()


@pytest.fixture
def study(make_run: MakeRun, tmp_path: Path) -> Path:
    """Two seeds of a baseline and of PLOT."""
    for seed in (0, 1):
        evaluated(make_run(f"b{seed}", seed=seed), ("dpo",), seed, 0.1 * seed)
        evaluated(make_run(f"p{seed}", seed=seed), ("dpo", "plot"), seed, 0.2 + 0.1 * seed)
    return tmp_path


def test_base_baseline_and_plot_stand_side_by_side(study: Path) -> None:
    runs = [contents.read(folder) for folder in compare.find(study)]
    written = compare.write(study, runs)
    assert written.tables[0].header == ["", "base", "dpo (baseline)", "dpo+plot (PLOT)"]
    found = rows(written.tables[0])["Harmlessness: attack success rate, GCG ↓"]
    assert found == ["0.400", "0.450 [0.400, 0.500]", "0.650 [0.600, 0.700]"]
    text = (study / "comparison.md").read_text()
    assert "(figures/subpreferences.png)" in text
    for file in ("tables/subpreferences.csv", "tables/subpreferences.tex"):
        assert "Harmlessness" in (study / file).read_text()
    assert (study / "figures" / "subpreferences.svg").is_file()
    assert "The seven sub-preferences" in (study / "comparison.html").read_text()


def test_settings_that_differ_are_said_to_forbid_comparing(study: Path) -> None:
    evaluated(study / "p0", ("dpo", "plot"), 0, 0.2, limit=1000)
    runs = [contents.read(folder) for folder in compare.find(study)]
    note = subpreferences.table(columns_of_groups(grouped(runs))).note
    assert "mt_bench was run with settings that differ" in note
    assert "math was run with" not in note


def test_runs_without_benchmarks_have_no_such_table(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("one")
    written = compare.write(tmp_path, [contents.read(tmp_path / "one")])
    assert all(table.name != "subpreferences" for table in written.tables)
    assert not (tmp_path / "figures" / "subpreferences.png").exists()
