"""Published figures: only facts with a source, always marked as another setting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from plot_exp.config.losses import parse_terms
from plot_exp.report.contents import Contents
from plot_exp.report.measures import KNOWN
from plot_exp.report.study import published
from plot_exp.report.study.groups import grouped
from plot_exp.report.study.tables import Cell

RunOf = Callable[..., Contents]


def rows_of(*runs: Contents) -> dict[str, list[Cell]]:
    table = published.table(grouped(runs))
    assert table is not None
    return {row[0].text: row[1:] for row in table.rows}


def test_every_figure_names_its_source_and_a_metric_of_ours() -> None:
    for figure in published.figures():
        assert figure.source.startswith("arXiv ")
        assert figure.metric in {*KNOWN, "train/seconds"}
        assert all(parse_terms(loss) for loss in figure.values)


def test_what_was_not_measured_is_said(run_of: RunOf) -> None:
    rows = rows_of(run_of("dpo+plot"))
    gcg = rows["Attack success rate, GCG, %: dpo+plot"]
    assert gcg[0].text == "26.83"
    assert "Llama-3.2-3B" in gcg[1].text
    assert gcg[2].text == "not measured in these runs (eval=asr measures it)"
    assert not any("dpo" in name.split(": ")[-1].split("+")[1:] for name in rows)


def test_own_rates_stand_in_the_published_unit_with_their_judge(run_of: RunOf) -> None:
    facts = {"judge": "refusal substrings", "behaviours": "demo", "attacks": {"gcg": {}}}
    asr = {"asr": {"after": {"facts": facts}}}
    runs = [
        run_of("dpo", seed, metrics={"eval/asr/gcg": rate}, evaluations=asr)
        for seed, rate in enumerate((0.5, 0.7))
    ]
    cells = rows_of(*runs)["Attack success rate, GCG, %: dpo"]
    assert cells[2].numbers["mean"] == pytest.approx(60.0)
    assert cells[3].text == "tiny, demo, behaviours of demo, judged by refusal substrings"


def test_training_time_is_a_ratio_on_the_same_seeds(run_of: RunOf) -> None:
    runs = [run_of("dpo", seed, metrics={"train/seconds": 10.0 * (seed + 1)}) for seed in (0, 1)]
    runs += [run_of("dpo+plot", 1, metrics={"train/seconds": 21.0})]
    rows = rows_of(*runs)
    name = "Training time, as a multiple of DPO's"
    assert rows[f"{name}: dpo+plot"][2].numbers["mean"] == pytest.approx(21.0 / 20.0)
    assert f"{name}: dpo" not in rows


def test_losses_without_published_figures_have_no_table(run_of: RunOf) -> None:
    assert published.table(grouped([run_of("kto")])) is None
