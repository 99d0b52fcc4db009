"""Rows outlive a kill at any moment."""

from __future__ import annotations

import pytest

from plot_exp.errors import RunError, UserError
from plot_exp.evals.record import Record


def test_rows_are_read_back_and_the_last_of_a_key_counts(tmp_path):
    record = Record(tmp_path / "deep" / "rows.jsonl")
    for key in (0, "a", 1):
        record.add(key, {"text": f"line\u2028{key}\nend \ud800"})
    record.add("a", {"text": "again"})
    assert len(record) == 3
    again = Record(record.path)
    assert list(again) == ["0", "a", "1"]
    assert again["a"] == {"text": "again"}
    assert again[1]["text"] == "line\u20281\nend ?"
    assert 0 in again
    assert 2 not in again


def test_a_torn_line_is_taken_away_and_the_next_row_stands_on_its_own(tmp_path):
    record = Record(tmp_path / "rows.jsonl")
    for key in range(3):
        record.add(key, {"n": key})
    content = record.path.read_bytes()
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    for kept in (len(content) - 1, ends[1] + 5, ends[1] + 1):
        record.path.write_bytes(content[:kept])
        torn = Record(record.path)
        assert len(torn) == 2
        torn.add(2, {"n": 2})
        assert record.path.read_bytes() == content


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    for damage in ('{"key": ', "[1]", '{"other": 1}', "5"):
        path.write_text('{"key": "0"}\n' + damage + '\n{"key": "1"}\n')
        with pytest.raises(UserError, match="line 2 is damaged"):
            Record(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="rows"):
        Record(tmp_path / "file" / "rows.jsonl").add(0, {})
