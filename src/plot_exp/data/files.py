"""Rows of JSON, JSON Lines and Parquet files, plain or gzip; one clear error for each fault."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from plot_exp.data.examples import Origin
from plot_exp.errors import UserError
from plot_exp.reading import limits, megabytes, parse_json

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet")
# Rows of a Parquet file that are decoded together: few, since one may be as large as the limit.
PARQUET_BATCH = 64

_LFS_START = b"version https://git-lfs.github.com/spec/"
_GZIP_START = b"\x1f\x8b"
_UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """One record of a file.

    Attributes:
        values: the record's fields.
        file: the file's path, or the name of a hub dataset and split.
        row: its 0-based number among the records.
        line: its 1-based physical line, where the format has lines.
    """

    values: dict[str, Any]
    file: str
    row: int
    line: int | None = None

    @property
    def origin(self) -> Origin:
        """File and row, as examples carry them."""
        return Origin(self.file, self.row)

    def __str__(self) -> str:
        line = "" if self.line is None else f" (line {self.line})"
        return f"{self.file}, row {self.row}{line}"


def has_known_suffix(path: Path) -> bool:
    """Whether the name ends like a format that `rows` reads."""
    return path.name.lower().endswith(SUFFIXES)


def check_file(path: Path) -> None:
    """Looks at a file's first bytes only.

    Raises:
        UserError: the file is missing, unreadable, empty, a Git LFS pointer, in UTF-16, or of a
            format that is not read here.
    """
    if not has_known_suffix(path):
        raise UserError(
            f"{path} ends in none of {', '.join(SUFFIXES)}; convert it to one of these formats."
        )
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_START))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not start:
        raise UserError(f"{path} is empty; expected at least one record.")
    if start.startswith(_LFS_START):
        raise UserError(
            f"{path} is a Git LFS pointer, not the data; run `git lfs pull` in its repository, or "
            "download the file itself."
        )
    if start.startswith(_UTF16_STARTS):
        raise UserError(f"{path} is in UTF-16; save it as UTF-8.")


def rows(path: Path) -> Iterator[Row]:
    """Yields the records of one file; blank lines are passed over but counted as lines.

    A file is taken as gzip by its first bytes, not by its name. `.json` may hold one object, a
    list of objects, or JSON Lines.

    Raises:
        UserError: see `check_file`; or a truncated or corrupt gzip stream, invalid UTF-8, invalid
            JSON, a record that is not an object, no record at all, or a size beyond the limits.
    """
    check_file(path)
    if path.name.lower().endswith(".parquet"):
        found = _parquet_rows(path)
    elif path.name.lower().endswith((".json", ".json.gz")) and not _begins_json_lines(path):
        found = _document_rows(path)
    else:
        found = _line_rows(path)
    count = 0
    for row in found:
        count += 1
        yield row
    if not count:
        raise UserError(f"{path} holds no records; expected at least one.")


def _expands(path: Path) -> UserError:
    return UserError(
        f"{path} expands to more than {limits().expansion:g} times its size, which no text does; "
        "it looks like a damaged or hostile file (limits.expansion allows more)."
    )


class _Bounded(io.RawIOBase):
    """A byte stream that stops when gzip expands beyond any plausible text."""

    def __init__(self, stream: gzip.GzipFile, path: Path, compressed: int) -> None:
        self._stream = stream
        self._path = path
        # Text compresses 3 to 20 times. Deflate's own limit is about 1030 times.
        self._limit = max(limits().record, int(limits().expansion * compressed))
        self._seen = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._seen += len(data)
        if self._seen > self._limit:
            raise _expands(self._path)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_START
    if not compressed:
        return path.open("rb")
    expanded = gzip.GzipFile(path, "rb")
    bounded = _Bounded(expanded, path, path.stat().st_size)
    return io.BufferedReader(bounded, 2**16)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Physical lines split at line feeds alone: strings may hold U+2028 and its like."""
    number, most = 0, limits().record
    try:
        with _open(path) as stream:
            while line := stream.readline(most + 1):
                number += 1
                if len(line) > most:
                    raise UserError(
                        f"{path}, line {number} is longer than {megabytes(most)}; expected one "
                        "record a line (limits.record_mb allows more)."
                    )
                yield number, line.removeprefix(_UTF8_BOM) if number == 1 else line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} is a truncated or damaged gzip file (after line {number}): {error}; "
            "download it again."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not valid UTF-8 (byte {error.start}); save the file as UTF-8."
        ) from error


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kinds = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
        kind = kinds.get(type(value), "a number")
        raise UserError(f"{where} is {kind}; expected a JSON object with named fields.")
    return value


def _line_rows(path: Path) -> Iterator[Row]:
    row = 0
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, row {row} (line {number})"
        yield Row(_object(parse_json(_decode(line, where), where), where), str(path), row, number)
        row += 1


def _begins_json_lines(path: Path) -> bool:
    """Whether the first line that is not blank is a whole object and another one follows it."""
    first = None
    for _, line in _lines(path):
        if not line.strip():
            continue
        if first is not None:
            return line.lstrip().startswith(b"{")
        try:
            first = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if not isinstance(first, dict):
            return False
    return False


def _document_rows(path: Path) -> Iterator[Row]:
    data = bytearray()
    for _, line in _lines(path):
        data += line
        if len(data) > limits().document:
            raise UserError(
                f"{path} is one JSON document of more than {megabytes(limits().document)}; convert "
                "it to JSON Lines (one record a line), or raise limits.document_mb."
            )
    if not data.strip():
        return
    document = parse_json(_decode(bytes(data), str(path)), str(path))
    if not isinstance(document, list):
        yield Row(_object(document, str(path)), str(path), 0)
        return
    for index, value in enumerate(document):
        yield Row(_object(value, f"{path}, row {index}"), str(path), index)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as arrow  # type: ignore[import-untyped]
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    row, most = 0, limits().record
    try:
        with parquet.ParquetFile(path) as file:
            _check_expansion(path, file.metadata)
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                if batch.nbytes > most:
                    raise UserError(
                        f"{path}: the {batch.num_rows} rows from {row} on hold more than "
                        f"{megabytes(most)} (limits.record_mb allows more)."
                    )
                for values in batch.to_pylist():
                    yield Row(values, str(path), row)
                    row += 1
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as Parquet: {reason}") from error


def _check_expansion(path: Path, metadata: Any) -> None:
    """What the file says of itself before anything is unpacked."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > max(limits().record, limits().expansion * path.stat().st_size):
        raise _expands(path)
