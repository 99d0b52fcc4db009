"""The passes of one optimizer step through policy and reference, each with its own random state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.data.mismatched import Mismatch
from plot_exp.models.policy import Policy
from plot_exp.models.reference import Reference
from plot_exp.ops.scores import Request, Scores
from plot_exp.training.mismatched import mismatched_log_ratio
from plot_exp.training.world import World


@dataclass(frozen=True)
class Passes:
    """One step's passes; two of them on one microbatch agree in every random number.

    Attributes:
        reference: None where no term needs one.
        request: what the terms ask of the policy.
        drops: whether the policy's dropout draws masks by token.
        seed: of the run.
        step: optimizer steps taken before this one.
        first: this process's first microbatch among those of all processes.
    """

    policy: Policy
    reference: Reference | None
    request: Request
    drops: bool
    seed: int
    step: int
    first: int

    def score_policy(self, batch: Batch, index: int, of_reference: Scores | None) -> Scores:
        """The policy's scores of this process's microbatch `index`."""
        seed_device(self.policy.device, pass_seed(self.seed, self.step, self.first + index))
        states = None if self.reference is None else self.reference.states(of_reference)
        return self.policy(batch, self.request, self._dropout_seed(), states)

    @torch.no_grad()
    def score_reference(self, batch: Batch) -> Scores:
        """The reference's scores, with what the policy's answer needs of it."""
        assert self.reference is not None
        return self.reference(batch, self.request.of_reference())

    def mismatched(
        self, microbatches: Sequence[Batch], mismatch: Mismatch, world: World
    ) -> Tensor | None:
        """What KTO's reference point is made of (see `mismatched_log_ratio`)."""
        reference = self.reference
        assert reference is not None
        seed_device(self.policy.device, pass_seed(self.seed, self.step, 0))
        return mismatched_log_ratio(
            microbatches,
            mismatch,
            lambda batch: self.policy(batch, Request(), self._dropout_seed()),
            lambda batch: reference(batch, Request()),
            self.policy.device,
            world,
        )

    def _dropout_seed(self) -> int | None:
        """One for the whole step: masks by token differ from token to token by themselves."""
        return pass_seed(self.seed, self.step, 0) if self.drops else None


def seed_device(device: torch.device, seed: int) -> None:
    """Seeds what a pass on the device draws from.

    `torch.manual_seed` also notes a stack trace for every kind of accelerator that is not there,
    which takes milliseconds and is never freed.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def pass_seed(seed: int, step: int, microbatch: int) -> int:
    """The random state of one forward pass, dropout included."""
    return (seed * 1_000_003 + step) * 4_099 + microbatch
