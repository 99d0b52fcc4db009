"""Every way in which a file can be broken ends in one sentence that names file, row and remedy."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from plot_exp.data import files
from plot_exp.data.files import rows
from plot_exp.errors import UserError

ROW = {"prompt": "a\u2028b", "n": 1}


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_strings_with_unicode_line_separators_stay_whole(tmp_path: Path) -> None:
    line = json.dumps(ROW, ensure_ascii=False)
    found = list(rows(write(tmp_path / "a.jsonl", f"{line}\r\n\n{line}\n")))
    assert [row.values for row in found] == [ROW, ROW]
    assert [(row.row, row.line) for row in found] == [(0, 1), (1, 3)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"n": 1}, {"n": 2}]'),
        ("a.json", '{"n": 1}\n{"n": 2}\n'),
        ("a.jsonl", '\ufeff{"n": 1}\n{"n": 2}'),
        ("a.jsonl.gz", '{"n": 1}\n{"n": 2}\n'),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_formats_are_read_whatever_the_compression(
    tmp_path: Path, name: str, text: str, compressed: bool
) -> None:
    data = gzip.compress(text.encode()) if compressed else text.encode()
    assert [row.values["n"] for row in rows(write(tmp_path / name, data))] == [1, 2]


def test_one_pretty_printed_object_is_one_row(tmp_path: Path) -> None:
    found = list(rows(write(tmp_path / "7.json", json.dumps({"a": 1, "b": 2}, indent=4))))
    assert [row.values for row in found] == [{"a": 1, "b": 2}]


def test_parquet_is_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"question": ["q", "r"]}), tmp_path / "a.parquet")
    assert [row.values for row in rows(tmp_path / "a.parquet")] == [
        {"question": "q"},
        {"question": "r"},
    ]
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        list(rows(write(tmp_path / "b.parquet", b"PAR1 no")))


GOOD = b'{"n": 1}\n'


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b" \n\n", "holds no records"),
        ("a.jsonl.gz", gzip.compress(b""), "holds no records"),
        ("a.json", b"[]", "holds no records"),
        ("a.jsonl", GOOD + b"\n" + b'{"n": 2', r"row 1 \(line 3\) is not valid JSON.*cut off"),
        ("a.jsonl", GOOD + b'{"n": "\xff"}\n', r"row 1 \(line 2\) is not valid UTF-8 \(byte 7\)"),
        ("a.jsonl", GOOD + b"[1]\n", r"row 1 \(line 2\) is a list; expected a JSON object"),
        ("a.json", b"[1]", "row 0 is a number"),
        ("a.json", b'[{"n": 1}, ', "not valid JSON"),
        ("a.jsonl.gz", gzip.compress(GOOD * 999)[:-20], "truncated or damaged gzip"),
        ("a.jsonl.gz", b"\x1f\x8b\x08garbage", "truncated or damaged gzip"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        ("a.jsonl", '{"n": 1}'.encode("utf-16"), "UTF-16"),
        ("a.jsonl", b"[" * 200_000, "row 0"),
        ("a.csv", b"a,b\n", "ends in none of"),
    ],
)
def test_a_broken_file_is_one_clear_error(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(UserError, match=message) as caught:
        list(rows(path))
    assert str(path) in str(caught.value)


def test_too_long_a_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**20)
    path = write(tmp_path / "a.jsonl", GOOD + b'{"n": "' + b"x" * 2**20 + b'"}\n')
    with pytest.raises(UserError, match="line 2 is longer than 1 MiB"):
        list(rows(path))


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "GZIP_RATIO_FROM_BYTES", 2**16)
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(GOOD * 10**5))
    with pytest.raises(UserError, match="200 times its size"):
        list(rows(path))


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(rows(tmp_path / "none.jsonl"))
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = write(tmp_path / "a.jsonl", GOOD)
    path.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        list(rows(path))
