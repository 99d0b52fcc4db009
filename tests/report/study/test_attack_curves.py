"""Success over cases and steps, recomputed from the runs' own records."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plot_exp.report.contents import Contents
from plot_exp.report.study import attack_curves
from plot_exp.report.study.groups import Group, grouped

RunOf = Callable[..., Contents]

# Success of GCG after 5 and 10 steps by loss and seed; one run was checked at 15 too.
STEPS = {
    ("dpo", 0): {5: 0.4, 10: 0.8},
    ("dpo", 1): {5: 0.5, 10: 0.9, 15: 1.0},
    ("dpo+plot", 0): {5: 0.1, 10: 0.2},
    ("dpo+plot", 1): {5: 0.2, 10: 0.4},
}


def side(
    steps: dict[int, float], cases: list[float], attacker: str = "some/model"
) -> dict[str, Any]:
    over_steps = [{"at": float(at), "value": value} for at, value in steps.items()]
    over_cases = [{"at": float(k), "value": value} for k, value in enumerate(cases, start=1)]
    return {
        "settings": {"attacks": {"zero_shot": {"attacker": attacker}, "gcg": {}}},
        "facts": {
            "judge": "refusal substrings",
            "judged_by": "refusal",
            "behaviours": "demo",
            "attacks": {
                "gcg": {"over_cases": [], "over_steps": over_steps},
                "zero_shot": {"over_cases": over_cases, "over_steps": []},
            },
        },
    }


@pytest.fixture
def groups(run_of: RunOf) -> list[Group]:
    before = side({5: 0.0, 10: 0.6}, [0.5, 0.7])
    runs = []
    for (loss, seed), steps in STEPS.items():
        after = side(steps, [0.3, 0.6])
        runs.append(run_of(loss, seed, evaluations={"asr": {"after": after, "before": before}}))
    return grouped(runs)


def test_curves_are_means_over_seeds_at_the_steps_that_all_have(groups: list[Group]) -> None:
    found = {
        curve.label: curve.points for curve in attack_curves.curves(groups, "gcg", "over_steps")
    }
    assert found == {
        "before training": [(5.0, [0.0]), (10.0, [0.6])],
        "dpo": [(5.0, [0.4, 0.5]), (10.0, [0.8, 0.9])],
        "dpo+plot": [(5.0, [0.1, 0.2]), (10.0, [0.2, 0.4])],
    }


def test_the_table_recomputes(groups: list[Group]) -> None:
    table = attack_curves.table(groups)
    assert table is not None
    assert table.header == ["", "before training", "dpo", "dpo+plot"]
    rows = {row[0].text: row[1:] for row in table.rows}
    assert list(rows) == [
        "Zero-Shot, 1 case",
        "Zero-Shot, 2 cases",
        "GCG, 5 steps",
        "GCG, 10 steps",
    ]
    cell = rows["GCG, 10 steps"][2]
    assert cell.numbers["mean"] == pytest.approx(statistics.fmean([0.2, 0.4]))
    assert cell.numbers["spread"] == pytest.approx(statistics.stdev([0.2, 0.4]))
    assert "list of refusal phrases" in table.note
    assert "another attacker" not in table.note


def test_a_model_that_attacks_itself_is_told(run_of: RunOf) -> None:
    after = side({5: 0.1, 10: 0.2}, [0.1, 0.2], attacker="the attacked model itself")
    table = attack_curves.table(grouped([run_of("dpo", evaluations={"asr": {"after": after}})]))
    assert table is not None
    assert "Zero-Shot were written by the attacked model itself" in table.note


def test_the_figure_is_drawn_where_there_are_curves(
    groups: list[Group], run_of: RunOf, tmp_path: Path
) -> None:
    (picture,) = attack_curves.draw(groups, tmp_path)
    assert picture.file == "attack_curves.png"
    svg = (tmp_path / "attack_curves.svg").read_text(encoding="utf-8")
    for words in ("GCG", "Zero-Shot", "before training", "dpo+plot"):
        assert f"<!-- {words} -->" in svg
    assert list(attack_curves.draw(grouped([run_of("dpo")]), tmp_path)) == []
    assert attack_curves.table(grouped([run_of("dpo")])) is None
