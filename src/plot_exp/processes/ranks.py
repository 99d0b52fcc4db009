"""Which of a run's processes this is, as torchrun, SLURM or the run itself says."""

from __future__ import annotations

import os
from dataclasses import dataclass

from plot_exp.config.schema import Config
from plot_exp.errors import UserError

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run.

    Attributes:
        rank, size: among all of them.
        local_rank, local_size: among those of its machine.
        address, port: where the processes meet: at the first one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "127.0.0.1"
    port: int = 0

    @property
    def nodes(self) -> int:
        """How many machines there are, each with as many processes."""
        return max(1, self.size // self.local_size)

    @property
    def node(self) -> int:
        """Which of the machines this one is."""
        return self.rank // self.local_size

    def variables(self) -> dict[str, str]:
        """The environment variables that say so, those of torchrun."""
        values = (self.rank, self.local_rank, self.size, self.local_size, self.address, self.port)
        return {name: str(value) for name, value in zip(TORCHRUN, values, strict=True)}


def started_outside() -> Ranks | None:
    """What torchrun, SLURM's srun or a run's first process says; None where nobody does."""
    environment = os.environ
    if all(name in environment for name in TORCHRUN):
        rank, local_rank, size, local_size = (int(environment[name]) for name in TORCHRUN[:4])
        address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        return Ranks(rank, size, local_rank, local_size, address, port)
    # Set within a step of srun alone: a batch script by itself is one process.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _of_slurm()
    return None


def _of_slurm() -> Ranks:
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    try:
        slurm = SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:  # it looks at the variables, and says what is wrong with them
        raise UserError(f"SLURM: {error}") from error
    size = int(os.environ["SLURM_STEP_NUM_TASKS"])
    nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
    return Ranks(
        slurm.global_rank(),
        size,
        slurm.local_rank(),
        size // nodes,
        slurm.main_address,
        slurm.main_port,
    )


def speaks() -> bool:
    """Whether this process tells a person what goes on: the first of a run, or the only one."""
    outside = started_outside()
    return outside is None or outside.rank == 0


def is_shared(config: Config) -> bool:
    """Whether several processes, or one that could be several, share the run."""
    return config.task == "train" and config.trainer.strategy != "single"


def settled(config: Config) -> Config:
    """The configuration with `auto` replaced by what this machine or the launcher gives.

    A plan is of devices that may be elsewhere, and keeps it.

    Raises:
        UserError: several processes were started for what is the work of one.
    """
    trainer, outside = config.trainer, started_outside()
    update: dict[str, object] = {}
    if is_shared(config):
        if outside is not None:
            update = {"devices": outside.local_size, "nodes": outside.nodes}
        elif trainer.nodes > 1:
            raise UserError(
                f"trainer.nodes={trainer.nodes}: one command starts the processes of one machine; "
                "start it on each with torchrun, or with srun under SLURM (docs/devices.md)"
            )
        elif trainer.devices == "auto":
            update = {"devices": _devices(trainer.accelerator)}
    elif outside is not None and outside.size > 1:
        what = f"task={config.task}" if config.task != "train" else "trainer.strategy=single"
        raise UserError(
            f"{outside.size} processes were started, and {what} is the work of one: "
            "start one, or write trainer=ddp or trainer=fsdp to share a training run"
        )
    elif trainer.devices == "auto" and config.task != "plan":
        update = {"devices": 1}
    if trainer.precision == "auto" and config.task != "plan":
        update["precision"] = "bf16-mixed" if _on_gpu(trainer.accelerator) else "32-true"
    if not update:
        return config
    return config.model_copy(update={"trainer": trainer.model_copy(update=update)})


def _devices(accelerator: str) -> int:
    """Every GPU, or one process on the CPU."""
    import torch

    return torch.cuda.device_count() if _on_gpu(accelerator) else 1


def _on_gpu(accelerator: str) -> bool:
    import torch

    return accelerator != "cpu" and torch.cuda.is_available()
