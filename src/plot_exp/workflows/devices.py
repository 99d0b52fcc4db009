"""How the policies of a run lie on its devices: whole on one or on each, or in parts on all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh

from plot_exp.config.schema import TrainerConfig
from plot_exp.data.collate import Batch
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.processes.session import Session, current
from plot_exp.training.lockstep import Lockstep
from plot_exp.training.sharding import frozen_like, gathered, shard, skeleton
from plot_exp.training.world import Processes, World, current_world
from plot_exp.workflows.device import device_of

T = TypeVar("T")


@dataclass
class Devices:
    """The devices of a run, of which this process has one; every policy whole on each.

    Attributes:
        session: the processes of the run.
        world: the same, as what is computed together sees them.
    """

    session: Session = field(default_factory=current)
    world: World = field(default_factory=World)

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.session.leads

    def place(self, policy: Policy) -> Policy:
        """Puts a policy where it is scored, in place."""
        return policy

    def back(self, policy: Policy, device: torch.device) -> None:
        """Puts a placed policy back on its device, where a trainer has taken it from there."""
        policy.to(device)

    def frozen_copy(self, policy: Policy) -> Policy:
        """A placed policy as it is now, without gradients."""
        return frozen_copy(policy)

    def in_one_piece(self, policy: Policy) -> Policy | None:
        """A placed policy whole, in the first process; None in the others."""
        return policy if self.leads else None

    def first(self, name: str, make: Callable[[], T]) -> T:
        """See `Session.first`; `make` may call placed policies."""
        return self.session.first(name, make)

    def opened(self, name: str, make: Callable[[], T]) -> T:
        """What `make` opens and places, by the first process before the others."""
        return self.session.first(name, make)

    def idle_with(self, batch: Batch) -> None:
        """What a process scores while others need a pass of a policy in parts."""


class Parts(Devices):
    """Every policy in parts, one on each device.

    Args:
        settings: of the trainer.
    """

    def __init__(self, settings: TrainerConfig) -> None:
        self.device = device_of(settings)
        self.lockstep = Lockstep()
        self.mixed = torch.bfloat16 if settings.precision == "bf16-mixed" else None
        session = current()
        self.mesh = init_device_mesh(self.device.type, (session.ranks.size,))
        world = Processes(self.device, pace=self.lockstep, sums_gradients=True)
        super().__init__(session, world)
        self._skeletons: dict[Policy, Policy] = {}

    def place(self, policy: Policy) -> Policy:
        """See `Devices`."""
        empty = skeleton(policy)
        shard(policy, self.mesh, self.mixed)
        policy.to(self.device)
        self._skeletons[policy] = empty
        self.lockstep.add(policy)
        return policy

    def frozen_copy(self, policy: Policy) -> Policy:
        """See `Devices`."""
        copied = frozen_like(policy, self._skeleton(policy), self.mesh)
        self.lockstep.add(copied)
        return copied

    def in_one_piece(self, policy: Policy) -> Policy | None:
        """See `Devices`."""
        return gathered(policy, self._skeleton(policy), here=self.leads)

    def _skeleton(self, policy: Policy) -> Policy:
        return skeleton(self._skeletons[policy])

    def first(self, name: str, make: Callable[[], T]) -> T:
        """See `Devices`; passes that the first process calls are kept pace with."""
        with self.world.pace():
            made = [make()] if self.leads else []
        if self.leads:
            return self.session.first(name, made.pop)
        self.session.first(name, bool)  # waits for what the first one says
        return make()

    def opened(self, name: str, make: Callable[[], T]) -> T:
        """See `Devices`; a machine never holds more than one policy that is not cut yet."""
        return self.session.in_turn(name, make)

    def idle_with(self, batch: Batch) -> None:
        """See `Devices`."""
        self.lockstep.idle_with(batch)


def devices_of(settings: TrainerConfig) -> Devices:
    """The devices of the run that this process is in."""
    if in_parts(settings):
        return Parts(settings)
    return Devices(current(), current_world(device_of(settings)))


def in_parts(settings: TrainerConfig) -> bool:
    """Whether the policies of the run at hand are to lie in parts."""
    return settings.strategy == "fsdp" and torch.distributed.is_initialized()


def opened_on(settings: TrainerConfig) -> torch.device:
    """Where a policy is loaded: one that is to be cut on the CPU, since no device need hold it."""
    return torch.device("cpu") if in_parts(settings) else device_of(settings)
