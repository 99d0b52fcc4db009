"""What a loss term is: what it needs, whether it is coupled, and how it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from plot_exp.config.terms import Schedule
from plot_exp.data.collate import Responses
from plot_exp.ops.scores import Request, Scores, Side


@dataclass(frozen=True)
class Totals:
    """Facts of the optimizer's whole batch, every device and microbatch; most are denominators.

    They are known before any pass, so a term that is a sum over examples, pairs or tokens needs
    no second one.

    Attributes:
        pairs: the best response of each ranking against every other one.
        rankings: examples with two ranked responses or more.
        mismatched: the mean of s − s_ref over prompts with responses to other prompts of the
            batch, where a term needs it and there are any.
    """

    examples: int
    pairs: int
    rankings: int
    responses: dict[Side, int]
    tokens: dict[Side, int]
    mismatched: Tensor | None = None

    @staticmethod
    def of(parts: Sequence[Responses]) -> Totals:
        """The counts of several microbatches together."""
        return Totals(
            examples=sum(part.examples for part in parts),
            pairs=sum(len(part.pairs) for part in parts),
            rankings=sum(len(part.pairs[:, 0].unique()) for part in parts),
            responses={
                "chosen": sum(int(part.chosen.sum()) for part in parts),
                "rejected": sum(int(part.rejected.sum()) for part in parts),
            },
            tokens={
                "chosen": sum(int(part.length[part.chosen].sum()) for part in parts),
                "rejected": sum(int(part.length[part.rejected].sum()) for part in parts),
            },
        )

    @staticmethod
    def add(parts: Sequence[Totals]) -> Totals:
        """The counts of several processes together."""
        sides: tuple[Side, Side] = ("chosen", "rejected")
        return Totals(
            examples=sum(part.examples for part in parts),
            pairs=sum(part.pairs for part in parts),
            rankings=sum(part.rankings for part in parts),
            responses={side: sum(part.responses[side] for part in parts) for side in sides},
            tokens={side: sum(part.tokens[side] for part in parts) for side in sides},
        )


@dataclass(frozen=True)
class TermResult:
    """A term's value and what is worth logging beside it.

    Attributes:
        loss: scalar, unweighted.
        metrics: detached scalars by name, logged under `train/<term>/`.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Term(nn.Module):
    """One objective.

    Class attributes:
        needs_reference: reads the reference's scores.
        needs_mismatched: reads `totals.mismatched`, which costs an extra pass of both models.
        coupled: its value on a batch is not the sum of its values on the batch's parts, so it
            must see the whole batch's scores.
        auxiliary: meant to be added to another objective; gradient shares are taken of the
            first term that is not.

    Attributes:
        request: the outputs that it reads beside token log-probabilities.
        weight: its factor in the sum.
        beta: its factor from log-ratios to rewards, where it has one.
        gradient_share: the share of the vanilla term's gradient norm that its own is to have; the
            weight is then set while training.
        gradient_share_every: steps between two measurements of the norms.
        schedule: how its factor goes over the run.
    """

    needs_reference: ClassVar[bool] = False
    needs_mismatched: ClassVar[bool] = False
    coupled: bool = False
    auxiliary: ClassVar[bool] = False

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.request = Request()
        self.beta: float | None = None
        self.gradient_share: float | None = None
        self.gradient_share_every = 1
        self.schedule: Schedule = "constant"

    def scheduled(self, step: int, steps: int) -> float:
        """The part of its factor that counts at this 1-based step of the run: in (0, 1]."""
        if self.schedule == "rising":
            return step / steps
        if self.schedule == "falling":
            return (steps - step + 1) / steps
        return 1.0

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> TermResult:
        """The term on one microbatch, or on the whole batch where the term is coupled.

        Args:
            policy: the policy's scores, R responses with N tokens.
            reference: the reference's, or None where no term needs it.
            responses: pairs, ranks, labels and lengths of the R responses.
            totals: counts over the optimizer's whole batch.
        """
        raise NotImplementedError
