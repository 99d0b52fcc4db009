"""What a model says of a batch's responses, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

Side = Literal["chosen", "rejected"]
Pool = Literal["batch", "response", "position", "log_batch", "log_response"]

# Pools whose value on a batch is the sum of those on its parts.
SUMMED_POOLS: frozenset[Pool] = frozenset({"batch", "log_batch"})


@dataclass(frozen=True)
class Request:
    """Outputs beyond token log-probabilities; what no term asks for is not computed.

    Attributes:
        distributions: (side, pool) pairs: the softmax at the response positions of one side,
            summed over the batch, over each response, or left at each position; with `log_` its
            logarithm, summed.
    """

    distributions: frozenset[tuple[Side, Pool]] = frozenset()

    def __or__(self, other: Request) -> Request:
        return Request(self.distributions | other.distributions)


@dataclass(frozen=True)
class Scores:
    """What one model says of R responses with N tokens.

    Attributes:
        token_logps: [N] fp32, or fp64 for a double model.
        response_of_token: [N] the response each token belongs to.
        length: [R] tokens of each response.
        distributions: for each requested (side, pool): the summed softmax [V] for `batch`; its
            sum over each response of that side [R_side, V] for `response`; [N_side, V] for
            `position`; of `log_batch` and `log_response` the same of log-probabilities.
    """

    token_logps: Tensor
    response_of_token: Tensor
    length: Tensor
    distributions: dict[tuple[Side, Pool], Tensor] = field(default_factory=dict)

    def sums(self) -> Tensor:
        """[R] s(y), the log-probability of each response."""
        zeros = self.token_logps.new_zeros(len(self.length))
        return zeros.index_add(0, self.response_of_token, self.token_logps)

    def means(self) -> Tensor:
        """[R] s(y) / |y|."""
        return self.sums() / self.length

    def tensors(self) -> list[Tensor]:
        """The differentiable outputs, in a fixed order."""
        return [self.token_logps, *(self.distributions[key] for key in sorted(self.distributions))]

    def replace_tensors(self, tensors: Sequence[Tensor]) -> Scores:
        """The same scores on other tensors, in the order of `tensors()`."""
        token_logps, *distributions = tensors
        return Scores(
            token_logps,
            self.response_of_token,
            self.length,
            dict(zip(sorted(self.distributions), distributions, strict=True)),
        )

    def to(self, device: torch.device | str) -> Scores:
        """The same numbers on another device."""
        return Scores(
            self.token_logps.to(device),
            self.response_of_token.to(device),
            self.length.to(device),
            {key: value.to(device) for key, value in self.distributions.items()},
        )

    def leaves(self) -> Scores:
        """Detached copies that collect gradients of their own."""
        return self.replace_tensors([tensor.detach().requires_grad_() for tensor in self.tensors()])

    def detach(self) -> Scores:
        """The same numbers without a graph."""
        return self.replace_tensors([tensor.detach() for tensor in self.tensors()])

    def as_tensors(self) -> dict[str, Any]:
        """Plain tensors by plain names, for a checkpoint that is loaded with weights only."""
        return {
            "token_logps": self.token_logps,
            "response_of_token": self.response_of_token,
            "length": self.length,
            "distributions": {"/".join(key): value for key, value in self.distributions.items()},
        }

    @staticmethod
    def from_tensors(state: Mapping[str, Any]) -> Scores:
        """What `as_tensors` gave."""
        distributions = {
            cast(tuple[Side, Pool], tuple(key.split("/"))): value
            for key, value in state["distributions"].items()
        }
        return Scores(
            state["token_logps"], state["response_of_token"], state["length"], distributions
        )

    @staticmethod
    def concatenate(parts: Sequence[Scores]) -> Scores:
        """The scores of several microbatches as those of one batch."""
        if len(parts) == 1:
            return parts[0]
        offsets, rows = [], 0
        for part in parts:
            offsets.append(part.response_of_token + rows)
            rows += len(part.length)
        distributions = {}
        for key in parts[0].distributions:
            pieces = [part.distributions[key] for part in parts]
            summed = key[1] in SUMMED_POOLS
            distributions[key] = torch.stack(pieces).sum(0) if summed else torch.cat(pieces)
        return Scores(
            torch.cat([part.token_logps for part in parts]),
            torch.cat(offsets),
            torch.cat([part.length for part in parts]),
            distributions,
        )

    def split_gradients(
        self, gradients: Sequence[Tensor], parts: Sequence[Scores]
    ) -> list[list[Tensor]]:
        """Gradients of a concatenation's `tensors()` as those of its parts.

        The gradient of a sum is the same for every part; the others are cut in order.
        """
        keys: list[tuple[Side, Pool] | None] = [None, *sorted(self.distributions)]
        columns = []
        for place, (key, gradient) in enumerate(zip(keys, gradients, strict=True)):
            if key is not None and key[1] in SUMMED_POOLS:
                columns.append([gradient] * len(parts))
            else:
                columns.append(list(gradient.split([len(p.tensors()[place]) for p in parts])))
        return [list(row) for row in zip(*columns, strict=True)]
