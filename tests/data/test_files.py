"""Every way in which a file can be broken ends in one sentence that names file, row and remedy."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from plot_exp import reading
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
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "holds no records"),
        ("a.json", b"[]", "holds no records"),
        ("a.jsonl", GOOD + b"\n" + b'{"n": 2', r"row 1 \(line 3\) is not valid JSON.*cut off"),
        ("a.jsonl", GOOD + b'{"n": "\xff"}\n', r"row 1 \(line 2\) is not valid UTF-8 \(byte 7\)"),
        ("a.jsonl", GOOD + b"[1]\n", r"row 1 \(line 2\) is a list; expected a JSON object"),
        ("a.json", b"[1]", "row 0 is a number"),
        ("a.json", b'[{"n": 1}, ', "not valid JSON"),
        ("a.jsonl.gz", gzip.compress(GOOD * 999, mtime=0)[:-20], "truncated or damaged gzip"),
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


@pytest.fixture
def small_limits() -> Iterator[None]:
    """1 MB a record, 2 MB a document."""
    before = reading.limits()
    reading.use_limits(reading.Limits(record=2**20, document=2**21))
    yield
    reading.use_limits(before)


def parquet_of(path: Path, cells: list[str]) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        # A dictionary holds a cell once, so that the file does not say how much it stands for.
        arrow.table({"prompt": cells}),
        path,
        compression="gzip",
        use_dictionary=len(cells) == 64,
    )


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", GOOD + b'{"n": "' + b"x" * 2**20 + b'"}', r"line 2 is longer than 1 MB.*rec"),
        ("a.json", b"[\n" + GOOD[:-1] + b",\n" * 2**20, r"more than 2 MB.*limits.document_mb"),
        (
            "a.jsonl.gz",
            gzip.compress(GOOD * 10**6, mtime=0),
            r"200 times its size.*limits.expansion",
        ),
        ("a.jsonl", b'{"n": ' + b"9" * 5000 + b"}", "row 0.*too many digits"),
        ("a.jsonl", b'{"n": ' * 10**5, "row 0.*nested too deeply"),
        ("a.parquet", ["x" * 2**16] * 64, r"64 rows from 0 on .*1 MB.*limits.record_mb"),
        ("a.parquet", ["x" * 2**16] * 4096, "200 times its size"),
    ],
)
def test_what_is_too_large_is_refused_with_the_key_that_allows_more(
    tmp_path: Path, name: str, data: bytes | list[str], message: str
) -> None:
    path = tmp_path / name
    if isinstance(data, list):
        parquet_of(path, data)
    else:
        write(path, data)
    with pytest.raises(UserError, match=message):
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
