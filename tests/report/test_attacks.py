"""Attack success in a report: judge named, sides beside each other, unlike runs told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plot_exp.report import attacks, compare, contents
from plot_exp.report.run import write


def row(value: float, category: str = "all") -> dict[str, Any]:
    return {"category": category, "value": value, "low": 0.1, "high": 0.9, "count": 10.0}


def points(*values: float) -> list[dict[str, float]]:
    return [
        {"at": float(place), "value": value, "low": 0.0, "high": 1.0, "count": 10.0}
        for place, value in enumerate(values, start=1)
    ]


def side(value: float, judged_by: str = "refusal", seed: int = 0) -> dict[str, Any]:
    gcg = {
        "table": [row(value), row(value / 2, "cyber|crime")],
        "over_cases": [],
        "over_steps": points(0.1, value),
        "losses": points(2.0, 1.0),
        "cases": 10,
        "unreadable": 0,
        "loss": 1.25,
        "encoded_loss": 1.5,
        "same_ids": 1.0,
    }
    facts = {
        "judge": "a | judge",
        "judged_by": judged_by,
        "behaviours": "demo",
        "attacks": {"gcg": gcg},
    }
    return {"settings": {"seed": seed}, "notes": ["first", "dropped 3: why | not"], "facts": facts}


@pytest.fixture
def attacked(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """`attacked(name, after, before)`: a run with an `evaluations.json`."""

    def make(name: str, after: dict[str, Any], before: dict[str, Any] | None) -> Path:
        folder = make_run(name)
        found = {"asr": {"after": after} | ({"before": before} if before else {})}
        (folder / "evaluations.json").write_text(json.dumps(found), encoding="utf-8")
        return folder

    return make


def test_the_page_names_the_judge_and_sets_before_beside_after(
    attacked: Callable[..., Path],
) -> None:
    folder = attacked("run", side(0.25), side(0.75))
    write(folder)
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "## Attack success" in page
    assert "a &#124; judge" in page
    assert "do not compare with them" in page.replace("\n", " ")
    assert (
        "| GCG | 10 | 10 | 0.750 \\[0.100, 0.900\\] | 0.250 \\[0.100, 0.900\\] | −0.500 |" in page
    )
    assert "| cyber&#124;crime | 10 | 0.375" in page
    assert "- dropped 3: why &#124; not" in page
    for kind in ("over_steps", "losses"):
        assert f"plots/attacks_{kind}.png" in page
        assert (folder / f"plots/attacks_{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "plots/attacks_over_cases.png").exists()


def test_a_classifiers_number_carries_no_warning(attacked: Callable[..., Path]) -> None:
    page = attacks.section(contents.read(attacked("run", side(0.5, "classifier"), None)))
    assert attacks.LOOSE not in page
    assert "**a &#124; judge**" in page


def test_a_run_without_attacks_has_no_such_section_and_one_that_could_not_says_why(
    make_run: Callable[..., Path],
) -> None:
    folder = make_run("run")
    assert attacks.section(contents.read(folder)) == ""
    found = {"asr": {"after": {"not_run": "no judge there"}}}
    (folder / "evaluations.json").write_text(json.dumps(found), encoding="utf-8")
    assert "no judge there" in attacks.section(contents.read(folder))
    (folder / "evaluations.json").write_text("{", encoding="utf-8")
    write(folder)


def test_base_and_runs_stand_side_by_side(attacked: Callable[..., Path]) -> None:
    dpo = attacked("runs/dpo", side(0.5), side(0.75))
    plot = attacked("runs/plot", side(0.25), side(0.75))
    read = [contents.read(dpo), contents.read(plot)]
    table = attacks.compare(read, ["dpo", "plot"])
    assert "| Attack | base | dpo | plot |" in table
    cells = [f"{value:.3f} \\[0.100, 0.900\\]" for value in (0.75, 0.5, 0.25)]
    assert f"| GCG | {' | '.join(cells)} |" in table
    assert "not attacked alike" not in table
    compare.write(dpo.parent, read)
    assert "## Attack success" in (dpo.parent / "comparison.md").read_text(encoding="utf-8")


def test_runs_that_were_not_attacked_alike_are_told_apart(attacked: Callable[..., Path]) -> None:
    one = attacked("runs/one", side(0.5), side(0.75))
    other = attacked("runs/other", side(0.25, seed=1), side(0.5))
    table = attacks.compare([contents.read(one), contents.read(other)], ["one", "other"])
    assert "not attacked alike" in table
    assert "(seed)" in table
    assert "| Attack | base of one | base of other | one | other |" in table


def test_a_model_by_itself_has_no_empty_columns(attacked: Callable[..., Path]) -> None:
    folder = attacked("run", side(0.25), None)
    write(folder)
    page = (folder / "report.md").read_text(encoding="utf-8")
    section = page.split("## Attack success")[1].split("\n## ")[0]
    assert "| Attack | Behaviours | Cases | Success |" in section
    assert "| GCG | 10 | 10 | 0.250 \\[0.100, 0.900\\] |" in section
    assert "| cyber&#124;crime | 10 | 0.125 \\[0.100, 0.900\\] |" in section
    assert "not measured" not in section
    assert "after training" not in section


def test_nothing_is_drawn_of_a_start_alone(attacked: Callable[..., Path]) -> None:
    folder = attacked("run", {"not_run": "no judge"}, side(0.5))
    write(folder)
    assert not list(folder.glob("plots/attacks_*.png"))
    assert "no judge" in (folder / "report.md").read_text(encoding="utf-8")


def test_behaviours_are_listed_and_those_left_out_are_counted(
    attacked: Callable[..., Path],
) -> None:
    made = side(0.25)
    rows = [[f"deed_{place}", "standard", "a|b", 0.5, None] for place in range(60)]
    columns = ["behaviour", "functional", "semantic", "gcg", "zero_shot"]
    made["facts"]["tables"] = {"behaviours": {"columns": columns, "rows": rows}}
    page = attacks.section(contents.read(attacked("run", made, None)))
    assert "| Behaviour | Functional | Semantic | GCG | Zero-Shot |" in page
    assert "| deed\\_49 | standard | a&#124;b | 0.500 | no case |" in page
    assert "deed\\_50" not in page
    assert "The first 50 of 60" in page
