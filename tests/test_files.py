"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from plot_exp.errors import RunError, UserError
from plot_exp.files import (
    prepare_folder,
    remove_leftovers,
    replacing,
    write_json,
    write_text,
)


def test_text_and_json_come_back_as_they_went(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "α\r\nb")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "α\r\nb".encode()
    write_json(tmp_path / "a.json", {"a": [1, 0.1], "bad": math.nan, "in": {"far": math.inf}})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "a": [1, 0.1],
        "bad": None,
        "in": {"far": None},
    }


def test_what_a_writer_made_private_is_readable_in_its_place(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("a")
            temporary.chmod(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_half_written_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def half(temporary: Path) -> None:
        temporary.write_text("hal")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        half(temporary)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"a\.txt could not be written \(No space left on device\)"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="this folder cannot be written"):
        prepare_folder(tmp_path / "file" / "run")


def test_what_a_kill_left_goes_be_it_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".step-4.ckpt.aa.part").mkdir()
    (tmp_path / ".step-4.ckpt.aa.part" / "__0_0.distcp").write_bytes(b"half")
    (tmp_path / ".step-4.ckpt.bb.part").write_bytes(b"half")
    (tmp_path / "step-2.ckpt").mkdir()
    (tmp_path / ".of-a-person").write_bytes(b"kept")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".of-a-person", "step-2.ckpt"]
    remove_leftovers(tmp_path / "not-there")
