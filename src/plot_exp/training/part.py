"""One microbatch's scores under policy and reference, with what is known of its responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch

from plot_exp.data.collate import Responses
from plot_exp.losses.base import Totals
from plot_exp.ops.scores import Scores


@dataclass(frozen=True)
class Part:
    """One microbatch's scores, detached.

    Attributes:
        counts: of its responses, taken before they went to the device; None counts them there.
    """

    policy: Scores
    reference: Scores | None
    responses: Responses
    counts: Totals | None = None

    @property
    def totals(self) -> Totals:
        """The counts of its responses."""
        return Totals.of([self.responses]) if self.counts is None else self.counts

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return replace(
            self,
            policy=self.policy.to(device),
            reference=None if self.reference is None else self.reference.to(device),
            responses=self.responses.to(device),
        )

    def as_tensors(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint that is loaded with weights only."""
        return {
            "policy": self.policy.as_tensors(),
            "reference": None if self.reference is None else self.reference.as_tensors(),
            "responses": self.responses.as_tensors(),
            "counts": None if self.counts is None else asdict(self.counts),
        }

    @staticmethod
    def from_tensors(state: Mapping[str, Any]) -> Part:
        """What `as_tensors` gave."""
        reference = state["reference"]
        return Part(
            Scores.from_tensors(state["policy"]),
            None if reference is None else Scores.from_tensors(reference),
            Responses(**state["responses"]),
            None if state["counts"] is None else Totals(**state["counts"]),
        )

    @staticmethod
    def concatenate(parts: Sequence[Part]) -> Part:
        """Several microbatches as one."""
        references = [part.reference for part in parts if part.reference is not None]
        return Part(
            Scores.concatenate([part.policy for part in parts]),
            Scores.concatenate(references) if references else None,
            Responses.concatenate([part.responses for part in parts]),
            Totals.add([part.totals for part in parts]),
        )
