"""AlpacaEval 2's published numbers come out of its published annotations."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plot_exp.errors import UserError
from plot_exp.evals.alpaca_eval_files import open_tables
from plot_exp.evals.alpaca_eval_records import Annotation, read_annotations, read_outputs
from plot_exp.evals.alpaca_eval_scores import score, win_rates
from plot_exp.evals.length_control import predict
from plot_exp.evals.length_control_tables import Tables, read_difficulty, read_tables

MODELS = ["claude-2.1", "vicuna-7b-v1.5"]


def real() -> Path:
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return Path(folder, "alpaca_eval")


def published_tables() -> Tables:
    return read_tables(
        difficulty=real() / "instruction_difficulty_recovered.csv",
        weights=real() / "length_controlled_weights.csv",
    )


def leaderboard() -> dict[str, dict[str, str]]:
    with (real() / "leaderboard.csv").open(newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("model", MODELS)
def test_the_leaderboard_recomputes(model: str) -> None:
    found = score(read_annotations(real() / model / "annotations.json"), published_tables())
    row = leaderboard()[model]
    assert found.metrics["win_rate"] == pytest.approx(float(row["win_rate"]), abs=1e-8)
    assert found.metrics["standard_error"] == pytest.approx(float(row["standard_error"]), abs=1e-8)
    assert found.metrics["lc_win_rate"] == pytest.approx(
        float(row["length_controlled_winrate"]), abs=1e-6
    )
    for ours, theirs in {
        "wins": "n_wins",
        "wins_baseline": "n_wins_base",
        "draws": "n_draws",
        "win_rate/count": "n_total",
        "discrete_win_rate": "discrete_win_rate",
    }.items():
        assert found.metrics[ours] == pytest.approx(float(row[theirs])), ours
    assert int(found.metrics["length"]) == int(row["avg_length"])
    # Own fit, without the rows of the baseline's variants, which are not among these files.
    assert found.metrics["refit_lc_win_rate"] == pytest.approx(
        found.metrics["lc_win_rate"], abs=1.3
    )
    assert found.metrics["lc_win_rate/low"] < found.metrics["lc_win_rate"]
    assert found.notes == [f"lc_win_rate by the published weights of {model}."]


def test_the_published_weights_give_the_leaderboard_of_nearly_every_model() -> None:
    tables, board = published_tables(), leaderboard()
    difficulty = np.array(list(tables.difficulty.values()))
    errors = [
        abs(
            100 * float(predict(weights, difficulty).mean())
            - float(board[model]["length_controlled_winrate"])
        )
        for model, weights in tables.weights.items()
        if model in board
    ]
    assert len(errors) >= 199
    assert np.mean(np.array(errors) < 1e-4) > 0.9


def test_another_judge_or_baseline_is_fitted_for_itself() -> None:
    annotations = read_annotations(real() / MODELS[0] / "annotations.json")
    tables = published_tables()
    for change in ({"annotator": "another"}, {"baseline_name": "another"}):
        others = [replace(one, **change) for one in annotations]
        found = score(others, tables)
        assert "refit_lc_win_rate" not in found.metrics
        assert found.metrics["lc_win_rate"] == pytest.approx(24.7746, abs=1e-3)
        assert "fitted on 805 comparisons" in found.notes[0]
        assert found.metrics["lc_win_rate/low"] < 24.77 < found.metrics["lc_win_rate/high"]


def test_the_rows_of_the_baselines_variants_enter_the_fit_at_a_tenth_each(tmp_path: Path) -> None:
    """The file df_gamed.csv of the published data set, in small."""
    rng = np.random.default_rng(0)
    rows = ["index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline,model"]
    for place in range(60):
        length, difficulty, preference = rng.normal(), rng.normal(), rng.random()
        rows.append(f"{place},{preference},{length},{difficulty},False,verbose")
    (tmp_path / "df_gamed.csv").write_text("\n".join(rows))
    baseline = real() / "baseline_gpt4_1106_preview_outputs.json"
    (tmp_path / baseline.name).write_bytes(baseline.read_bytes())
    difficulty = real() / "instruction_difficulty_recovered.csv"
    (tmp_path / difficulty.name).write_bytes(difficulty.read_bytes())
    tables, outputs = open_tables(str(tmp_path))
    assert len(outputs) == 805
    assert tables.gamed is not None
    assert set(tables.gamed.sample_weight) == {0.1}
    assert set(tables.gamed.own) == {0.0}
    annotations = [
        replace(one, annotator="mine")
        for one in read_annotations(real() / MODELS[0] / "annotations.json")
    ]
    found = score(annotations, tables)
    assert "with the published rows" in found.notes[0]
    assert found.metrics["lc_win_rate"] != pytest.approx(24.7746, abs=1e-3)
    rows[1] = "0,1.4,0,0,False,verbose"
    (tmp_path / "df_gamed.csv").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"`preference` lies outside \[0, 1\]"):
        open_tables(str(tmp_path))


def test_win_rates_by_hand() -> None:
    found = win_rates([2.0, 1.0, 1.5, 1.25, None])
    assert found["win_rate"] == pytest.approx(43.75)
    assert found["win_rate/count"] == 4
    assert found["standard_error"] == pytest.approx(21.3478, abs=1e-4)
    assert (found["wins"], found["wins_baseline"], found["draws"]) == (1, 2, 1)
    assert found["discrete_win_rate"] == pytest.approx(37.5)
    assert found["unjudged"] == 1


def annotation(instruction: str, baseline: str, model: str, preference: float | None) -> Annotation:
    return Annotation(instruction, baseline, model, preference, "base", "mine", "judge")


def test_nothing_readable_gives_no_rate_but_a_count() -> None:
    found = score([annotation("a", "x", "y", None)], Tables(difficulty={"a": 0.0}))
    assert "win_rate" not in found.metrics
    assert "lc_win_rate" not in found.metrics
    assert found.metrics["unjudged"] == 1
    assert any("1 of 1 have no readable preference" in note for note in found.notes)


def test_unknown_instructions_leave_out_the_length_controlled_rate_alone() -> None:
    rows = [annotation("a", "x", "yy", 2.0), annotation("b", "xxx", "y", 1.0)]
    found = score(rows, Tables(difficulty={"a": 0.0}))
    assert found.metrics["win_rate"] == 50
    assert "lc_win_rate" not in found.metrics
    assert found.notes == [
        "lc_win_rate left out: 1 of 2 instructions have no published difficulty."
    ]
    assert found.metrics["margin/own_longer"] == 1.0
    assert found.metrics["margin/other_longer"] == -1.0
    assert found.metrics["length_gap"] == -0.5


ROW: dict[str, Any] = {
    "instruction": "a",
    "output_1": "x",
    "output_2": "y",
    "generator_1": "base",
    "generator_2": "mine",
    "annotator": "judge",
    "preference": 1.25,
}


def written(tmp_path: Path, *changes: dict[str, Any]) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([ROW | change for change in changes]))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"preference": 2.5}], "row 0 has the preference 2.5"),
        ([{"preference": "m"}], "row 0 has the preference 'm'"),
        ([{"preference": True}], "row 0 has the preference True"),
        ([{}, {"output_2": None, "instruction": "b"}], "row 1 has no text under `output_2`"),
        ([{}, {}], "one instruction in rows 0 and 1"),
        ([{}, {"instruction": "b", "generator_2": "x"}], "several values of `generator_2`"),
    ],
)
def test_bad_annotations_are_named(
    tmp_path: Path, changes: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        read_annotations(written(tmp_path, *changes))


def test_nulls_and_old_draws_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"preference": None},
        {"preference": 0, "instruction": "b"},
        {"preference": float("nan"), "instruction": "c"},
        {"instruction": "d", "raw_completion": None},
    )
    assert [one.preference for one in read_annotations(path)] == [None, 1.5, None, 1.25]


def test_outputs_are_read(tmp_path: Path) -> None:
    baseline = read_outputs(real() / "baseline_gpt4_1106_preview_outputs.json")
    assert len(baseline) == 805
    assert {one.generator for one in baseline} == {"gpt4_1106_preview"}


def test_a_difficulty_by_number_goes_by_the_order_of_the_instructions(tmp_path: Path) -> None:
    path = tmp_path / "difficulty.csv"
    path.write_text(",instruction_difficulty\n1,0.5\n0,-2\n")
    assert read_difficulty(path, ["a", "b"]) == {"b": 0.5, "a": -2.0}
    with pytest.raises(UserError, match="names instruction 1 without its text"):
        read_difficulty(path, ["a"])
    path.write_text("index,instruction_difficulty\n0,much\n")
    with pytest.raises(UserError, match="'much' under `instruction_difficulty`"):
        read_difficulty(path, ["a"])
    path.write_text("index,other\n0,1\n")
    with pytest.raises(UserError, match="no column `instruction_difficulty`"):
        read_difficulty(path, ["a"])
