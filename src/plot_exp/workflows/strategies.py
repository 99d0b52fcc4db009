"""Lightning's strategies for a run that several processes share, and checkpoints in parts."""

from __future__ import annotations

import secrets
import shutil
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as parts
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from plot_exp.config.schema import TrainerConfig
from plot_exp.errors import RunError
from plot_exp.files import unwritable
from plot_exp.models.policy import frozen_names
from plot_exp.processes.ranks import Ranks
from plot_exp.processes.session import current
from plot_exp.training.average import KEY
from plot_exp.training.plain_parts import PlainPlanner, require_plain

# What Lightning writes beside the parts: everything that is neither weights nor moments.
FACTS = "meta.pt"
# What stands before the name of a weight where the parts hold its moments, and its average.
MOMENTS = "optimizer_0.state."


class RunProcesses(ClusterEnvironment):
    """The run's processes, as Lightning asks for them: they are there already."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Yes: see `plot_exp.processes`."""
        return True

    @property
    def main_address(self) -> str:
        """Of the first process."""
        return self.ranks.address

    @property
    def main_port(self) -> int:
        """Of the first process."""
        return self.ranks.port

    @staticmethod
    def detect() -> bool:
        """Never by itself."""
        return False

    def world_size(self) -> int:
        """Of all machines."""
        return self.ranks.size

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """This process's."""
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """On this machine."""
        return self.ranks.local_rank

    def node_rank(self) -> int:
        """This machine's."""
        return self.ranks.node


class Replicas(DDPStrategy):
    """DDP, whose steps add up the gradients themselves.

    Each process has its share of one loss, over one microbatch or several, and passes without
    gradients lie in between: the module adds gradients once a step, and takes no mean.
    """

    def configure_ddp(self) -> None:
        """Leaves the module without the wrapper that would average its gradients."""


class InParts(ModelParallelStrategy):
    """FSDP2 of a policy that lies in its parts; checkpoints are folders, whole or not there.

    Frozen weights are in none of them. A folder is read by any number of processes.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Each process writes its parts beside the place, which the folder takes once it is whole.

        Raises:
            RunError: the disk cannot be written.
        """
        place = Path(self.broadcast(str(filepath)))
        made = place.with_name(self.broadcast(f".{place.name}.{secrets.token_hex(4)}.part"))
        try:
            super().save_checkpoint(checkpoint, made, storage_options)
            self.barrier()
            if self.is_global_zero:
                if place.exists():
                    shutil.rmtree(place)
                made.rename(place)
        except (OSError, parts.CheckpointException) as error:
            shutil.rmtree(made, ignore_errors=True)
            raise _unwritten(place, error) from error
        self.barrier()

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads each process's parts of weights and moments, however many wrote them.

        Raises:
            RunError: the checkpoint is of other weights.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        module = self.lightning_module
        assert module is not None
        assert self.model is not None
        frozen = {f"policy.{name}" for name in frozen_names(module.policy)}
        state = {
            name: value
            for name, value in get_model_state_dict(self.model).items()
            if name not in frozen
        }
        try:
            require_plain(path)
            parts.load({"state_dict": state}, checkpoint_id=path, planner=PlainPlanner())
            (optimizer,) = self.optimizers
            moments = {"optimizer_0": get_optimizer_state_dict(self.model, optimizer)}
            parts.load(moments, checkpoint_id=path, planner=PlainPlanner())
        except parts.CheckpointException as error:
            raise RunError(f"the checkpoint does not fit the model: {_first(error)}") from error
        loosely = StateDictOptions(strict=False)
        set_model_state_dict(self.model, state, options=loosely)
        set_optimizer_state_dict(
            self.model, optimizer, moments["optimizer_0"], options=StateDictOptions()
        )
        facts: dict[str, Any] = torch.load(path / FACTS, weights_only=True, map_location="cpu")
        return facts


def strategy_of(settings: TrainerConfig) -> dict[str, Any]:
    """What `lightning.Trainer` takes to have the run's processes; nothing for one alone."""
    if settings.strategy == "single" or not dist.is_initialized():
        return {"devices": 1}
    ranks = current().ranks
    timeout = timedelta(minutes=settings.timeout)
    strategy = (
        Replicas(timeout=timeout)
        if settings.strategy == "ddp"
        else InParts(data_parallel_size=ranks.size, tensor_parallel_size=1, timeout=timeout)
    )
    devices: Any = ranks.local_size
    return {
        "strategy": strategy,
        "devices": devices,
        "num_nodes": ranks.nodes,
        "plugins": [RunProcesses(ranks)],
    }


def in_parts(path: Path) -> bool:
    """Whether a checkpoint is a folder of parts."""
    return path.is_dir() and (path / FACTS).is_file() and (path / ".metadata").is_file()


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """The trained weights in a checkpoint, in one piece on the CPU, by their names in the policy.

    Where an average of them is kept (`optimizer.ema`), it is what they are.

    Raises:
        OSError: it cannot be read.
    """
    if not in_parts(checkpoint):
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        state = _averaged(content["state_dict"], content.get("averages", {}))
    else:
        state = _joined(checkpoint)
    return {
        key.removeprefix("policy."): value
        for key, value in state.items()
        if key.startswith("policy.")
    }


def _joined(checkpoint: Path) -> dict[str, Tensor]:
    require_plain(checkpoint)
    reader = parts.FileSystemReader(checkpoint)
    empty = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and _is_weight(name)
    }
    with warnings.catch_warnings():
        # That one process reads alone is what is meant.
        warnings.filterwarnings("ignore", message="torch.distributed is")
        parts.load(empty, storage_reader=reader, planner=PlainPlanner())
    weights, averages = {}, {}
    for name, value in empty.items():
        if name.startswith(MOMENTS):
            averages[name.removeprefix(MOMENTS).removesuffix(f".{KEY}")] = value
        else:
            weights[name.removeprefix("state_dict.")] = value
    return _averaged(weights, averages)


def _averaged(weights: dict[str, Tensor], averages: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averages in the place of their weights; one of tied weights serves every name."""
    found = weights | averages
    for name in weights.keys() - averages.keys():
        for other in averages.keys() & weights.keys():
            alike = weights[other].shape == weights[name].shape
            if alike and torch.equal(weights[other], weights[name]):
                found[name] = averages[other]
    return found


def _is_weight(name: str) -> bool:
    """Whether a weight or its average stands there."""
    average = name.startswith(MOMENTS) and name.endswith(f".{KEY}")
    return average or name.startswith("state_dict.policy.")


def _unwritten(place: Path, error: BaseException) -> RunError:
    """The sentence for a checkpoint that could not be written, whichever process failed."""
    if isinstance(error, parts.CheckpointException):
        cause = _first(error)
        if not isinstance(cause, OSError):
            cause = OSError(str(cause))
        return unwritable(place, cause)
    assert isinstance(error, OSError)
    return unwritable(place, error)


def _first(error: parts.CheckpointException) -> BaseException:
    """The reason that the first of the failing processes gives."""
    (cause, _), *_ = (error.failures[rank] for rank in sorted(error.failures))
    found: BaseException = cause
    return found
