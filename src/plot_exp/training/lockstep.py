"""Forward passes of policies in parts, which every process has to call together.

A layer in parts gathers its weights from all processes, so a pass that one process calls alone
waits for ever. Where processes need different numbers of passes (shares of a validation, answers
of different lengths), each pass begins with a word from all: which policy each wants to call, or
that it has no more to do. One policy is called at a time; who does not want it calls it on an idle
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from plot_exp.data.collate import Batch
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

NOTHING = -1


class Lockstep:
    """Keeps the processes' passes together between `begin` and the end of its context."""

    def __init__(self) -> None:
        self._policies: list[Policy] = []
        self._idle: Batch | None = None
        self._kept = False

    def idle_with(self, batch: Batch) -> None:
        """Sets what is scored while others need a pass."""
        self._idle = batch

    def add(self, policy: Policy) -> None:
        """Makes each of the policy's passes wait for the word of all; in one order everywhere."""
        number = len(self._policies)
        self._policies.append(policy)
        policy.register_forward_pre_hook(lambda *_: self._enter(number), prepend=True)
        outputs: Callable[..., Any] = policy.outputs

        def outputs_together(**inputs: Any) -> Any:
            self._enter(number)
            return outputs(**inputs)

        policy.outputs = outputs_together  # type: ignore[method-assign]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within it a process calls as many passes as it needs; at its end it waits for all."""
        if self._kept:
            yield
            return
        self._kept = True
        try:
            yield
            while (turn := self._turn(NOTHING)) != NOTHING:
                self._call_idle(turn)
        finally:
            self._kept = False

    def _enter(self, number: int) -> None:
        """Returns when it is this policy's turn."""
        while self._kept and (turn := self._turn(number)) != number:
            self._call_idle(turn)

    def _turn(self, wanted: int) -> int:
        """The policy that is called next; `NOTHING` where nobody wants one."""
        told = torch.tensor([wanted])
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return int(told)

    @torch.no_grad()
    def _call_idle(self, number: int) -> None:
        policy = self._policies[number]
        assert self._idle is not None
        self._kept = False
        training = policy.training
        policy.eval()
        try:
            policy(self._idle.to(policy.device), Request())
        finally:
            policy.train(training)
            self._kept = True
