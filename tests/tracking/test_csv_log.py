"""`metrics.csv` survives kills, resumes and disks that cannot be written."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plot_exp.errors import RunError
from plot_exp.tracking.csv_log import CsvLog


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestMetricsFile:
    def test_validation_stands_in_the_row_of_its_step(self, tmp_path: Path) -> None:
        log = CsvLog(tmp_path / "metrics.csv")
        log.log({"train/loss": 0.5}, 10)
        log.log({"val/reward_accuracy": 0.75}, 10)
        log.log({"train/loss": 0.25}, 20)
        assert rows(log.path) == [
            {"step": "10", "train/loss": "0.5", "val/reward_accuracy": "0.75"},
            {"step": "20", "train/loss": "0.25", "val/reward_accuracy": ""},
        ]

    def test_every_line_is_on_disk_before_log_returns(self, tmp_path: Path) -> None:
        log = CsvLog(tmp_path / "metrics.csv")
        for step in range(1, 5):
            log.log({"train/loss": 1 / step}, step)
            assert float(rows(log.path)[-1]["train/loss"]) == 1 / step

    def test_numbers_keep_all_digits_and_say_what_is_not_finite(self, tmp_path: Path) -> None:
        log = CsvLog(tmp_path / "metrics.csv")
        log.log({"third": 1 / 3, "bad": math.nan, "far": -math.inf, "count": 3}, 1)
        (row,) = rows(log.path)
        assert float(row["third"]) == 1 / 3
        assert (row["bad"], row["far"], row["count"]) == ("nan", "-inf", "3")

    def test_resume_goes_on_as_if_never_killed(self, tmp_path: Path) -> None:
        whole, killed = CsvLog(tmp_path / "whole.csv"), CsvLog(tmp_path / "killed.csv")
        for step in range(1, 9):
            whole.log({"a,b": step / 7, "loss": step / 3}, step)
        for step in range(1, 7):
            killed.log({"a,b": step / 7, "loss": step / 3}, step)
        with killed.path.open("a") as file:
            file.write("7,1.0")
        resumed = CsvLog(killed.path, resume_step=4)
        for step in range(5, 9):
            resumed.log({"a,b": step / 7, "loss": step / 3}, step)
        assert killed.path.read_bytes() == whole.path.read_bytes()

    @pytest.mark.parametrize("cut", range(0, 60, 3))
    def test_a_file_cut_anywhere_can_be_gone_on_with(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "metrics.csv"
        log = CsvLog(path)
        for step in (1, 2, 3, 4):
            log.log({"loss": step / 3}, step)
        text = path.read_text()
        path.write_text(text[:cut])
        CsvLog(path, resume_step=2).log({"loss": 9.0}, 3)
        kept = rows(path)
        whole_lines = text[:cut].count("\n") - 1
        assert [row["step"] for row in kept] == [*["1", "2"][: max(whole_lines, 0)], "3"]
        assert all(row["loss"] in (repr(1 / 3), repr(2 / 3), "9.0") for row in kept)

    def test_a_new_run_does_not_go_on_with_an_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.csv"
        CsvLog(path).log({"old": 1.0}, 1)
        CsvLog(path).log({"new": 2.0}, 1)
        assert rows(path) == [{"step": "1", "new": "2.0"}]

    def test_a_disk_that_cannot_be_written_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file where the folder should be")
        with pytest.raises(RunError, match=r"metrics\.csv could not be written"):
            CsvLog(tmp_path / "run" / "metrics.csv", resume_step=0).log({"loss": 1.0}, 1)


LOGGER = """
import sys
from pathlib import Path
from plot_exp.tracking.csv_log import CsvLog
log = CsvLog(Path(sys.argv[1]))
for step in range(10**9):
    log.log({f"late/{step // 200}": step / 3, "loss": step / 7}, step)
    if step == 300:
        print("going", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.013, 0.11])
def test_a_killed_process_leaves_a_readable_file(tmp_path: Path, wait: float) -> None:
    path = tmp_path / "metrics.csv"
    arguments = [sys.executable, "-c", LOGGER, str(path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.kill()
    log = CsvLog(path, resume_step=250)
    log.log({"loss": 1.0}, 251)
    steps = [int(row["step"]) for row in rows(path)]
    assert steps == list(range(252))
    assert all(float(row["loss"]) == int(row["step"]) / 7 for row in rows(path)[:-1])
