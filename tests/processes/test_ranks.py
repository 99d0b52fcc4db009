"""Which processes a run has, as its settings and the launcher's variables say."""

from __future__ import annotations

from typing import Any

import pytest

from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.processes.ranks import TORCHRUN, Ranks, settled, speaks, started_outside


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def config(task: str = "train", **trainer: Any) -> Config:
    return Config.model_validate(
        {
            "task": task,
            "loss": {"dpo": {}},
            "cache_dir": "cache",
            "trainer": {"accelerator": "cpu", **trainer},
        }
    )


def launched(monkeypatch: pytest.MonkeyPatch, ranks: Ranks) -> None:
    for name, value in ranks.variables().items():
        monkeypatch.setenv(name, value)


def test_a_launcher_decides_on_devices_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    third = Ranks(rank=3, size=4, local_rank=1, local_size=2, address="10.0.0.1", port=29500)
    launched(monkeypatch, third)

    found = settled(config(strategy="fsdp", devices=1)).trainer

    assert (found.devices, found.nodes) == (2, 2)
    assert started_outside() == third
    assert third.node == 1
    assert not speaks()


def test_one_machine_needs_no_launcher_and_several_do() -> None:
    assert started_outside() is None
    assert speaks()
    assert settled(config(strategy="ddp", devices=3)).trainer.devices == 3
    assert settled(config(strategy="ddp", devices="auto")).trainer.devices == 1
    with pytest.raises(UserError, match="torchrun"):
        settled(config(strategy="ddp", devices=3, nodes=2))


@pytest.mark.parametrize(
    ("task", "strategy", "named"),
    [("train", "single", "trainer=ddp"), ("evaluate", "ddp", "task=evaluate")],
)
def test_what_is_the_work_of_one_process_is_not_done_by_two(
    monkeypatch: pytest.MonkeyPatch, task: str, strategy: str, named: str
) -> None:
    launched(monkeypatch, Ranks(rank=1, size=2, local_rank=1, local_size=2))
    with pytest.raises(UserError, match=named):
        settled(config(task, strategy=strategy))


def test_precision_is_settled_but_for_a_plan() -> None:
    assert settled(config(precision="auto")).trainer.precision == "32-true"
    plan = config("plan", strategy="fsdp", devices="auto", precision="auto")
    assert settled(plan) == plan


def test_a_batch_script_by_itself_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert started_outside() is None


def test_a_step_of_srun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_NTASKS": "8",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1",
        "SLURM_NODELIST": "node[17-18]",
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NAME": "train",
    }
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    found = started_outside()
    assert found is not None
    assert (found.rank, found.size, found.local_rank, found.local_size) == (5, 8, 1, 4)
    assert (found.node, found.nodes, found.address) == (1, 2, "node17")
