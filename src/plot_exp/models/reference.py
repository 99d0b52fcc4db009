"""The reference in its forms: a frozen copy, the policy as it started, or scores kept in a file.

A frozen `Policy` is the first form itself. Whoever holds a `Reference` need not know which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, Self

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.errors import RunError
from plot_exp.models.adapters import as_started, has_adapter
from plot_exp.models.policy import Policy
from plot_exp.models.reference_cache import StoredScores, response_keys
from plot_exp.ops.scores import Request, Scores
from plot_exp.ops.scoring import ReferenceStates


class Reference(Protocol):
    """What the losses, the validation and the evaluations ask of a reference.

    Attributes:
        device: where batches must lie to be scored.
    """

    @property
    def device(self) -> torch.device: ...

    def __call__(self, batch: Batch, request: Request) -> Scores:
        """Its scores of a batch, on the batch's device."""
        ...

    def states(self, scores: Scores | None) -> ReferenceStates | None:
        """See `Policy.states`."""
        ...

    def live(self) -> AbstractContextManager[Policy]:
        """The model itself, for the moment; nothing may be trained meanwhile."""
        ...

    def to(self, device: torch.device) -> object:
        """Moves it in place, where it has weights of its own."""
        ...


class PolicyStart:
    """The policy as it started: one set of weights, the trained adapter switched off.

    Without an adapter the weights themselves move, so that this holds until training begins.

    Args:
        policy: the policy; it is left in the mode it was in.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.moved = False

    @property
    def holds(self) -> bool:
        """Whether the start can still be had from the policy."""
        return not self.moved or has_adapter(self.policy.model)

    @property
    def device(self) -> torch.device:
        """That of the policy."""
        return self.policy.device

    def __call__(self, batch: Batch, request: Request) -> Scores:
        """See `Reference`."""
        with torch.no_grad(), self.live() as policy:
            return policy(batch, request)

    def states(self, scores: Scores | None) -> ReferenceStates | None:
        """See `Reference`; the head, too, is asked with the adapter off."""
        found = self.policy.states(scores)
        if found is None:
            return None
        head = found.head

        def as_it_started(hidden: Tensor) -> Tensor:
            with self.live():
                return head(hidden)

        return ReferenceStates(found.hidden, as_it_started)

    @contextmanager
    def live(self) -> Iterator[Policy]:
        """See `Reference`.

        Raises:
            RuntimeError: the weights have moved, and no adapter can be switched off.
        """
        if not self.holds:
            raise RuntimeError("the policy's weights have moved from where they started")
        training = self.policy.training
        self.policy.eval()
        try:
            with as_started(self.policy.model):
                yield self.policy
        finally:
            self.policy.train(training)

    def to(self, device: torch.device) -> Self:
        """Nothing: the policy's place is its own."""
        return self


class CachedReference:
    """Scores computed once and read from a file; the model is not kept in memory.

    Args:
        stored: the scores of every response that may be asked for.
        source: opens the reference's model for what is not data, such as generated answers.
        device: where its scores go unless the batch lies elsewhere.
    """

    def __init__(
        self,
        stored: list[StoredScores],
        source: Callable[[], AbstractContextManager[Policy]],
        device: torch.device,
    ) -> None:
        self.stored = stored
        self.source = source
        self.device = device

    def __call__(self, batch: Batch, request: Request) -> Scores:
        """See `Reference`.

        Raises:
            RunError: the file holds no scores of one of the responses.
            ValueError: the request is for more than log-probabilities.
        """
        if request != Request():
            raise ValueError("a cached reference has token log-probabilities only")
        rows: list[Tensor] = []
        for item in batch.sources:
            keys = response_keys(item)
            found = next((one for one in (part.rows(keys) for part in self.stored) if one), None)
            if found is None:
                raise RunError(
                    f"{item.example.origin}: the reference's scores of this example are not in "
                    "its cache; remove that file, or write reference_form=copy"
                )
            rows += found
        logps = torch.cat(rows)
        device = batch.targets.device
        if device.type == "cuda":
            logps = logps.pin_memory()
        return Scores(
            logps.to(device, non_blocking=True), batch.response_of_token, batch.responses.length
        )

    def states(self, scores: Scores | None) -> ReferenceStates | None:
        """None: see `Reference`."""
        return None

    @contextmanager
    def live(self) -> Iterator[Policy]:
        """See `Reference`; the model is opened, and let go at the end."""
        with self.source() as policy:
            yield policy

    def to(self, device: torch.device) -> Self:
        """Scores go to their batch; what is opened goes there."""
        self.device = device
        return self
