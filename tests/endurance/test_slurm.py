"""Jobs that go back to the queue, and find their run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from plot_exp import slurm


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_JOB_ID", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def scontrol(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Puts a `scontrol` on the PATH that notes its arguments and runs a script."""
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{script}\n')
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder / "calls"


def test_without_a_job_nothing_is_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scontrol(tmp_path, monkeypatch, "exit 0")
    assert slurm.requeue() == ""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert slurm.requeue() == ""
    assert not calls.exists()


def test_a_task_of_an_array_is_requeued_by_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = scontrol(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert "SLURM job 7_3 is requeued" in slurm.requeue()
    assert calls.read_text().splitlines()[-1] == "requeue 7_3"


def test_a_cancelled_job_is_left_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scontrol(tmp_path, monkeypatch, 'echo "JobId=7 JobState=CANCELLED Reason=None"')
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "was cancelled and is not requeued" in slurm.requeue()
    assert calls.read_text() == "show job 7\n"


def test_what_scontrol_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol(tmp_path, monkeypatch, "echo 'Requested operation is disabled' >&2; exit 1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "could not be requeued (Requested operation is disabled)" in slurm.requeue()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "could not be requeued (scontrol: " in slurm.requeue()


def test_each_command_of_a_job_finds_its_own_run_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for seed in ("0", "1"):
        run = tmp_path / f"run-{seed}"
        slurm.remember(tmp_path, ["loss=dpo", f"seed={seed}"], run)
        run.mkdir()
        (run / "config.yaml").touch()
    command = ["loss=dpo", "seed=1"]
    assert slurm.remembered(tmp_path, command) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert slurm.remembered(tmp_path, command) == tmp_path / "run-1"
    assert slurm.remembered(tmp_path, ["loss=dpo", "seed=2"]) is None
    (tmp_path / "run-1" / "config.yaml").unlink()
    assert slurm.remembered(tmp_path, command) is None
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert slurm.remembered(tmp_path, ["loss=dpo", "seed=0"]) is None


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "1", "RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
    ],
)
def test_one_process_of_many_asks(
    variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm.first_process() is first
