"""Flows in a report: what the file says stands in the table, the picture and the log."""

from __future__ import annotations

from pathlib import Path

from plot_exp.report import flows

ROWS = [
    {"giver": "a|b", "giver_id": 3, "receiver": " $x", "receiver_id": 4,
     "mass": 0.02, "share": 0.5, "cost": 1.25},
    {"giver": "a|b", "giver_id": 3, "receiver": "\n", "receiver_id": 7,
     "mass": 0.01, "share": 0.25, "cost": 0.0},
]  # fmt: skip
FOUND = {
    "flows": {
        "form": "line",
        "before": {"mass": 0.04, "form": ROWS, "full": ROWS[:1]},
        "after": {"mass": 0.03, "form": ROWS[1:], "full": []},
    }
}


def test_tables_show_mass_share_and_cost() -> None:
    text = flows.tables(FOUND)
    assert text.count("| From |") == 3
    assert "a&#124;b" in text
    assert "50.0 %" in text
    assert "1.250" in text


def test_pictures_are_drawn_for_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    drawn = flows.draw(FOUND, tmp_path / "plots")
    assert [picture.file for picture in drawn] == ["flows.png", "flows_full.png"]
    for picture in drawn:
        assert (tmp_path / "plots" / picture.file).read_bytes().startswith(b"\x89PNG")


def test_a_file_without_flows_has_none(tmp_path: Path) -> None:
    assert flows.draw({}, tmp_path) == []
    assert flows.tables({"flows": {}}) == ""
    assert flows.table_rows({})[1] == []


def test_every_flow_goes_to_the_log() -> None:
    columns, rows = flows.table_rows(FOUND)
    assert columns[:4] == ["when", "plan", "from", "to"]
    assert len(rows) == 4
    assert rows[0] == ["before", "form", "a|b", " $x", 0.02, 0.5, 1.25]
