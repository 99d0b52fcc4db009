"""A disk that runs full takes nothing that was whole, and is named with what to do."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from endurance_runs import Run
from forked_runs import QUICK, Command
from plot_exp import disk
from plot_exp.disk import full_disk, is_full, require_space
from plot_exp.errors import PausedError, RunError
from plot_exp.files import write_json
from plot_exp.tracking.csv_log import CsvLog
from plot_exp.workflows.engine import WholeCheckpointIO, last_checkpoint


def mount(folder: Path, size: str) -> bool:
    """Puts a small disk at a folder; only some may."""
    folder.mkdir()
    arguments = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    if not mount(folder, "4m"):
        pytest.skip("this user may mount no small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path, left: int) -> Path:
    """Leaves so many bytes free."""
    path = folder / "fill.bin"
    path.write_bytes(b"\0" * (shutil.disk_usage(folder).free - left))
    return path


def test_room_is_asked_for_before_a_checkpoint_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third checkpoint has no room: the second one stays and is what a resumed run takes."""
    run = Run(tmp_path, checkpoint_every=2)
    asked: list[int] = []

    def usage(folder: Path) -> Any:
        assert folder == tmp_path / "checkpoints"
        asked.append(1)
        return shutil._ntuple_diskusage(10**9, 0, 10**9 if len(asked) < 3 else 5000)

    monkeypatch.setattr(disk.shutil, "disk_usage", usage)
    with pytest.raises(PausedError) as raised:
        run.fit()
    said = str(raised.value)
    size = (tmp_path / "checkpoints" / "step-4.ckpt").stat().st_size
    needed = float(said.partition(" kB needed")[0].rpartition("(")[2]) * 1000
    assert 0.8 * size < needed <= size
    assert "5.0 kB free" in said
    assert str(tmp_path / "checkpoints") in said
    assert run.saved() == [4]
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-4.ckpt"


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the size was thought to fit: the half file goes, the earlier checkpoint stays."""
    monkeypatch.setattr("plot_exp.workflows.engine.require_space", lambda *_: None)
    place = small_disk / "checkpoints" / "step-2.ckpt"
    WholeCheckpointIO().save_checkpoint({"weights": torch.ones(100_000)}, place)
    with pytest.raises(
        PausedError, match=r"step-4\.ckpt could not be written \(.*\): the disk of .*full"
    ):
        WholeCheckpointIO().save_checkpoint(
            {"weights": torch.ones(2_000_000)}, place.with_name("step-4.ckpt")
        )
    assert [path.name for path in place.parent.iterdir()] == ["step-2.ckpt"]
    assert last_checkpoint(small_disk) == place


def test_a_log_keeps_whole_lines(small_disk: Path) -> None:
    log = CsvLog(small_disk / "metrics.csv")
    filled = fill(small_disk, 8192)
    row = {f"metric_{place}": 1 / 3 for place in range(30)}
    with pytest.raises(PausedError, match=r"metrics\.csv could not be written"):
        [log.log(row, step) for step in range(1, 1000)]
    text = log.path.read_text()
    assert text.endswith("\n")
    whole = [line.partition(",")[0] for line in text.splitlines()]
    step = len(whole)
    assert whole == ["step", *map(str, range(1, step))]
    assert step > 5
    filled.unlink()
    resumed = CsvLog(log.path, resume_step=step)
    resumed.log({"metric_0": 2.0}, step)
    assert log.path.read_text().splitlines()[-1].startswith(f"{step},2.0,")


def test_a_result_that_does_not_fit_leaves_the_earlier_one(small_disk: Path) -> None:
    path = small_disk / "metrics.json"
    write_json(path, {"val": 1})
    fill(small_disk, 4096)
    with pytest.raises(PausedError):
        write_json(path, {"val": "x" * 20_000})
    assert path.read_text() == '{\n  "val": 1\n}\n'
    assert sorted(one.name for one in small_disk.iterdir()) == ["fill.bin", "metrics.json"]


@pytest.mark.slow
def test_a_whole_run_on_a_full_disk_goes_on_when_there_is_room(small_disk: Path) -> None:
    """The base lies elsewhere; on the small disk a checkpoint has no room behind another one."""
    folder = small_disk.parent
    arguments = [*QUICK, "trainer.max_steps=40", "hydra.run.dir=disk/run"]
    command = Command(folder, arguments)
    command.wait_until((small_disk / "run" / "checkpoints" / "step-6.ckpt").exists)
    filled = fill(small_disk, 100_000)
    assert command.wait() == RunError.exit_code, command.output
    assert command.output.count("error: ") == 1
    assert "is full or its quota is used up" in command.output
    assert f"then go on: python -m plot_exp resume={small_disk / 'run'}" in command.output
    assert not list((small_disk / "run").rglob(".*.part"))
    kept = last_checkpoint(small_disk / "run")
    assert kept is not None

    filled.unlink()
    again = Command(folder, ["resume=disk/run"])
    assert again.wait() == 0, again.output


@pytest.mark.slow
def test_a_file_size_limit_is_a_full_disk_too(tmp_path: Path) -> None:
    """As a quota is, in writers that hide the system's number: the exported weights."""
    command = Command(tmp_path, [*QUICK, "hydra.run.dir=run"], file_bytes=200_000)
    assert command.wait() == RunError.exit_code, command.output
    assert "is full or its quota is used up" in command.output
    assert "Traceback" not in command.output
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob(".unfinished*"))


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("full"), False),
    ],
)
def test_full_disks_are_told_from_other_errors(error: Exception, full: bool) -> None:
    assert is_full(error) is full
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = error
    assert is_full(wrapped) is full


def test_a_folder_that_is_not_there_yet_is_measured_at_its_parent(tmp_path: Path) -> None:
    require_space(tmp_path / "later" / "deep" / "file", 10)
    assert f"the disk of {tmp_path} is full" in full_disk(tmp_path / "later" / "file")
    with pytest.raises(PausedError, match=r"1000000000\.0 GB needed"):
        require_space(tmp_path / "later" / "file", 10**18)
