"""A sweep's tables recomputed from the runs' own metrics."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plot_exp.config.schema import Config
from plot_exp.report import compare, contents
from plot_exp.report.contents import Contents
from plot_exp.report.study import summary
from plot_exp.report.study.groups import baseline_of, by_start, grouped
from plot_exp.report.study.write import Study, write
from plot_exp.report.subpreferences import columns_of_run
from plot_exp.workflows import report

MakeRun = Callable[..., Path]

# Accuracy by loss and seed: PLOT is clearly better at every alpha, and alpha=1 clearly best.
ACCURACY = {
    ("dpo", None): [0.600, 0.610, 0.605],
    ("dpo+plot", 0.1): [0.650, 0.661, 0.656],
    ("dpo+plot", 1.0): [0.700, 0.711, 0.704],
    ("dpo+plot", 10.0): [0.640, 0.650, 0.646],
}


def make_sweep(make_run: Callable[[Path, int], Path], folder: Path) -> None:
    for (loss, alpha), values in ACCURACY.items():
        for seed, value in enumerate(values):
            run_dir = make_run(folder / f"{loss}-{alpha}-{seed}", seed)
            settings: dict[str, Any] = yaml.safe_load((run_dir / "config.yaml").read_text())
            if alpha is None:
                del settings["loss"]["plot"]
            else:
                settings["loss"]["plot"]["alpha"] = alpha
            (run_dir / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
            metrics = json.loads((run_dir / "metrics.json").read_text())
            metrics |= {"val/reward_accuracy": value, "base/val/reward_accuracy": 0.5}
            metrics |= {"eval/exact_match": 0.1, "base/eval/exact_match": 0.0}
            (run_dir / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture(scope="module")
def written(
    make_finished_run: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("study") / "sweep"
    make_sweep(make_finished_run, folder)
    runs = [contents.read(run) for run in compare.find(folder)]
    return folder, compare.write(folder, runs)


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


def test_the_table_recomputes_from_the_runs(written: tuple[Path, Study]) -> None:
    folder, _ = written
    rows = rows_of(folder / "tables" / "preferences.csv")
    for (loss, alpha), values in ACCURACY.items():
        label = loss if alpha is None else f"{loss} plot.alpha={alpha}"
        row = rows[label]
        assert float(row["Reward accuracy ↑/mean"]) == pytest.approx(statistics.fmean(values))
        assert float(row["Reward accuracy ↑/spread"]) == pytest.approx(statistics.stdev(values))
        assert float(row["Reward accuracy ↑/count"]) == 3
    assert float(rows["before training"]["Reward accuracy ↑/mean"]) == 0.5


def test_the_clearly_best_alone_is_bold_and_baselines_are_found(
    written: tuple[Path, Study],
) -> None:
    _, study = written
    text = (study.tables[0]).markdown()
    bold = re.findall(r"\*\*(\d\.\d+) ", text)
    assert bold[0] == "0.705"
    losses = {group.label: baseline_of(group, study.groups) for group in study.groups}
    assert losses["dpo"] is None
    for label, baseline in losses.items():
        if label != "dpo":
            assert baseline is not None
            assert baseline.label == "dpo"
    against = next(table for table in study.tables if table.name == "preferences_against_baseline")
    names = [row[0].text for row in against.rows]
    assert names[0] == "dpo+plot plot.alpha=0.1 − dpo"
    assert against.rows[0][2].bold
    assert against.rows[0][2].numbers["mean"] == pytest.approx(0.0507, abs=1e-3)


def test_a_run_from_before_a_key_existed_is_of_the_group_that_leaves_it_alone(
    run_of: Callable[..., Contents],
) -> None:
    early = run_of("dpo+plot", 0, {"dpo": {"beta": 0.1}, "plot": {"alpha": 1.0}})
    late = run_of("dpo+plot", 1, {"dpo": {"beta": 0.1}, "plot": {"alpha": 1.0}})
    other = run_of("dpo+plot", 0, {"dpo": {"beta": 0.1}, "plot": {"alpha": 1.0}})
    baseline = run_of("dpo", 0, {"dpo": {"beta": 0.1}})
    assert late.config is not None
    assert other.config is not None
    late.config |= {"trainer": {"compile": False, "keep": {"mode": "max"}}, "plan": {"sample": 9}}
    late.config["loss"]["plot"] |= {"schedule": "constant"}
    other.config["loss"]["plot"] |= {"schedule": "rising"}
    groups = {group.label: group for group in grouped([early, late, other, baseline])}
    assert {label: sorted(group.runs) for label, group in groups.items()} == {
        "dpo": [0],
        "dpo+plot plot.schedule=constant": [0, 1],
        "dpo+plot plot.schedule=rising": [0],
    }
    for label, group in groups.items():
        assert (baseline_of(group, list(groups.values())) is not None) == (label != "dpo")


def test_each_start_has_its_own_row_its_own_best_and_its_own_range(
    run_of: Callable[..., Contents],
) -> None:
    starts = {"math": (0.60, 0.01), "gsm8k": (0.50, 0.30)}
    runs = []
    for name, (logps, right) in starts.items():
        for loss, gain in (("dpo", 0.0), ("dpo+plot", 0.1)):
            for seed in range(3):
                metrics = {
                    "base/val/logp_accuracy/mean": logps,
                    "val/logp_accuracy/mean": logps + gain * (1 + seed / 100),
                    "base/eval/exact_match": right,
                    "eval/exact_match": right + gain,
                }
                dataset = {"name": name, "hub_name": f"of/{name}"}
                runs.append(run_of(loss, seed, metrics=metrics, dataset=dataset))
    groups = grouped(runs)
    assert [group.label for group in groups] == [
        "dpo dataset=gsm8k",
        "dpo+plot dataset=gsm8k",
        "dpo dataset=math",
        "dpo+plot dataset=math",
    ]
    preferences, answers = (
        {row[0].text: row[2:] for row in table.rows}
        for table in summary.tables(groups)
        if table.name in ("preferences", "answers")
    )
    for name, (logps, _) in starts.items():
        assert preferences[f"before training, dataset={name}"][1].numbers["mean"] == logps
        assert preferences[f"dpo+plot dataset={name}"][1].bold
    assert answers["dpo dataset=math"][0].text == "not measurable"
    assert answers["dpo dataset=gsm8k"][0].numbers["mean"] == pytest.approx(0.3)


def test_a_number_that_some_runs_lack_says_how_many_have_it(
    run_of: Callable[..., Contents],
) -> None:
    runs = [run_of("dpo", seed) for seed in range(4)]
    runs += [run_of("dpo+plot", seed, metrics={"val/reward_margin": 1.0}) for seed in range(4)]
    for run in runs[:2]:
        assert run.metrics is not None
        run.metrics["val/reward_margin"] = 0.5 + 0.1 * run.metrics["val/reward_accuracy"]
    outcomes, against = summary.tables(grouped(runs))[:2]
    place = outcomes.header.index("Reward margin ↑")
    texts = {row[0].text: row[place].text for row in outcomes.rows}
    assert texts["dpo"].endswith("(2 of 4 runs)")
    assert "of 4 runs" not in texts["dpo+plot"]
    assert against.rows[0][place].text.endswith("(2 of 4 runs)")


def test_an_adapter_is_no_start_of_its_own(run_of: Callable[..., Contents]) -> None:
    runs = []
    for name, rank in (("math", 8), ("gsm8k", 4)):
        run = run_of("dpo", dataset={"name": name})
        assert run.config is not None
        run.config["model"]["lora"] = {"rank": rank}
        runs.append(run)
    starts = by_start(grouped(runs))
    labels = [summary.start_label(alike, starts) for alike in starts]
    assert labels == [", dataset=gsm8k", ", dataset=math"]


def test_a_number_that_is_not_finite_counts_as_lacking(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, value in enumerate([1.0, math.inf, math.nan]):
        path = make_run(f"all/{seed}", seed) / "metrics.json"
        numbers = json.loads(path.read_text())
        numbers |= {"val/reward_margin": value, "train/seconds": value}
        path.write_text(json.dumps(numbers))
    runs = [contents.read(run) for run in compare.find(tmp_path / "all")]
    tables = {table.name: table for table in summary.tables(grouped(runs))}
    outcomes, cost = tables["preferences"], tables["cost"]
    margin = outcomes.rows[1][outcomes.header.index("Reward margin ↑")]
    assert margin.text == "1.000 (1 of 3 runs)"
    assert cost.rows[0][cost.header.index("training, s")].text == "1.000 (1 of 3 runs)"


def test_the_note_says_how_many_intervals_chance_would_leave_clear(
    written: tuple[Path, Study],
) -> None:
    _, study = written
    against = next(table for table in study.tables if table.name == "preferences_against_baseline")
    cells = [cell for row in against.rows for cell in row if cell.numbers]
    judged = sum(cell.numbers["low"] is not None for cell in cells)
    clear = sum(cell.bold for cell in cells)
    assert f"{clear} of {judged} intervals leave zero out" in against.note
    assert f"about {judged * 0.05:.1f} would by chance" in against.note


def test_the_fewest_runs_of_a_setting_are_named_before_the_most(
    run_of: Callable[..., Contents], tmp_path: Path
) -> None:
    runs = [run_of("sft"), *(run_of("dpo", seed) for seed in range(8))]
    assert "1 to 8 seeds each" in write(tmp_path, runs).lead[0]


def test_what_all_runs_share_is_said_once(run_of: Callable[..., Contents], tmp_path: Path) -> None:
    steps = {"train/steps": 100.0, "val/count": 450.0}
    runs = [run_of("dpo", 0, metrics=steps)]
    runs += [run_of("dpo+plot", 0, {"plot": {"alpha": 0.5, "side": s}}, steps) for s in "ab"]
    lead = write(tmp_path, runs).lead
    assert lead[:2] == [
        "3 finished runs in 3 settings, 1 seed each.",
        "In all of them: dataset=demo, model=tiny, dpo.beta=0.1, plot.alpha=0.5, 100 steps, "
        "450 held-out examples.",
    ]


def test_a_rate_that_starts_at_nothing_is_not_measurable(written: tuple[Path, Study]) -> None:
    _, study = written
    answers = next(table for table in study.tables if table.name == "answers")
    place = answers.header.index("Exact match of final answers ↑")
    assert {row[place].text for row in answers.rows[1:]} == {"not measurable"}
    assert "Not measurable at this size: Exact match" in answers.note


def test_figures_and_page_are_written_and_need_no_network(written: tuple[Path, Study]) -> None:
    folder, _ = written
    for name in ("comparison", "sensitivity", "training_curves"):
        assert (folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert b"<svg" in (folder / "figures" / f"{name}.svg").read_bytes()[:600]
    page = (folder / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "dpo+plot plot.alpha=0.1 − dpo" in page


def test_latex_escapes_what_would_break_it(written: tuple[Path, Study]) -> None:
    folder, _ = written
    text = (folder / "tables" / "preferences.tex").read_text(encoding="utf-8")
    assert r"\textbf{0.705 $\pm$ 0.006" in text
    assert not re.search(r"(?<!\\)[_#%](?! Preferences)", text.replace("% Preferences", ""))


def test_repeated_and_unfinished_runs_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("all/a", "all/b", "all/c"):
        make_run(name, 0)
    (tmp_path / "all" / "c" / "metrics.json").unlink()
    runs = [contents.read(run) for run in compare.find(tmp_path / "all")]
    (group,) = grouped(runs)
    assert [path.name for path in group.repeated] == ["b"]
    report.run(Config.model_construct(runs=str(tmp_path / "all")), tmp_path)
    text = (tmp_path / "all" / "comparison.md").read_text()
    assert "left out (not finished, or failed): c." in text
    assert "1 run of a setting and seed that is there already, left out" in text


def test_a_model_that_was_only_measured_has_no_loss(make_run: MakeRun, tmp_path: Path) -> None:
    run_dir = make_run("all/base")
    settings = yaml.safe_load((run_dir / "config.yaml").read_text()) | {"task": "evaluate"}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))
    make_run("all/trained")
    runs = [contents.read(run) for run in compare.find(tmp_path / "all")]
    assert [group.label for group in grouped(runs)] == ["dpo+plot", "tiny, only measured"]
    (column,) = columns_of_run(contents.read(run_dir))
    assert column.title == "tiny"
    report.run(Config.model_construct(runs=str(run_dir)), tmp_path)
    assert "**PLOT** is a reconstruction" not in (run_dir / "report.md").read_text()


def test_a_term_at_a_share_of_another_ones_gradient_is_compared_without_it(
    run_of: Callable[..., contents.Contents],
) -> None:
    share = {"emo": {"weight": 1.0, "gradient_share": 0.3}}
    groups = grouped([run_of("dpo"), run_of("dpo+emo", 0, share), run_of("dpo+sft")])
    found = {group.loss: baseline_of(group, groups) for group in groups}
    assert found == {"dpo": None, "dpo+emo": groups[0], "dpo+sft": None}
