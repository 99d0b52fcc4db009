"""What a model says of a batch's responses, and what may be asked of it.

A term asks by setting its `request`, and finds the answer in the policy's `Scores`:

    Request(frozenset({("chosen", "batch")}))        scores.distributions[("chosen", "batch")]
    Request(tokens=frozenset({"entropy"}))           scores.tokens["entropy"]

Requests of several terms are joined with `|`. What comes back is differentiable; a term that
only reads it detaches it. `reference_kl` compares with a live reference, which is then asked for
`Request.of_reference()`, the states that its own distributions are made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from plot_exp.ops.embedding import FrozenEmbedding

Side = Literal["chosen", "rejected"]
Pool = Literal["batch", "response", "position", "log_batch", "log_response"]
TokenOutput = Literal["entropy", "hidden", "label_cost", "predicting_hidden", "reference_kl"]

# Pools whose value on a batch is the sum of those on its parts.
SUMMED_POOLS: frozenset[Pool] = frozenset({"batch", "log_batch"})


@dataclass(frozen=True)
class Request:
    """Outputs beyond token log-probabilities; what no term asks for is not computed.

    Attributes:
        distributions: (side, pool) pairs: the softmax at the response positions of one side,
            summed over the batch, over each response, or left at each position; with `log_` its
            logarithm, summed. `position` is [N_side, V] by its nature, whatever the chunks.
        tokens: what is given of every response token, by name. `entropy` [N] of the softmax that
            predicts it; `reference_kl` [N] KL(π_ref ‖ π_θ) of the two softmaxes; `label_cost` [N]
            Σ_v p_v (1 − cos(e_v, e_y)), the mean cost of moving the softmax to the token y;
            `predicting_hidden` [N, D] the last hidden state that it is predicted from; `hidden`
            [N, D] the last hidden state at its own position, which has read it.
        embedding: the vectors e of `label_cost`.
    """

    distributions: frozenset[tuple[Side, Pool]] = frozenset()
    tokens: frozenset[TokenOutput] = frozenset()
    embedding: FrozenEmbedding | None = None

    def __post_init__(self) -> None:
        if "label_cost" in self.tokens and self.embedding is None:
            raise ValueError("label_cost is measured in an embedding: give one")

    def __or__(self, other: Request) -> Request:
        given = [one for one in (self.embedding, other.embedding) if one is not None]
        if len(given) == 2 and given[0] is not given[1]:
            raise ValueError("two terms ask for label_cost in different embeddings")
        return Request(
            self.distributions | other.distributions,
            self.tokens | other.tokens,
            given[0] if given else None,
        )

    def of_reference(self) -> Request:
        """What the reference must be asked for before the policy can answer this."""
        if "reference_kl" in self.tokens:
            return Request(tokens=frozenset({"predicting_hidden"}))
        return Request()


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
        tokens: each requested token output, N rows.
    """

    token_logps: Tensor
    response_of_token: Tensor
    length: Tensor
    distributions: dict[tuple[Side, Pool], Tensor] = field(default_factory=dict)
    tokens: dict[TokenOutput, Tensor] = field(default_factory=dict)

    def sums(self) -> Tensor:
        """[R] s(y), the log-probability of each response."""
        return self.per_response(self.token_logps)

    def per_response(self, values: Tensor) -> Tensor:
        """[R] the sum over each response of one value [N] a token."""
        zeros = values.new_zeros(len(self.length))
        return zeros.index_add(0, self.response_of_token, values)

    def means(self) -> Tensor:
        """[R] s(y) / |y|."""
        return self.sums() / self.length

    def tensors(self) -> list[Tensor]:
        """The differentiable outputs, in a fixed order."""
        return [
            self.token_logps,
            *(self.tokens[name] for name in sorted(self.tokens)),
            *(self.distributions[key] for key in sorted(self.distributions)),
        ]

    def replace_tensors(self, tensors: Sequence[Tensor]) -> Scores:
        """The same scores on other tensors, in the order of `tensors()`."""
        token_logps, *others = tensors
        names, keys = sorted(self.tokens), sorted(self.distributions)
        return replace(
            self,
            token_logps=token_logps,
            tokens=dict(zip(names, others[: len(names)], strict=True)),
            distributions=dict(zip(keys, others[len(names) :], strict=True)),
        )

    def to(self, device: torch.device | str) -> Scores:
        """The same numbers on another device."""
        moved = self.replace_tensors([tensor.to(device) for tensor in self.tensors()])
        return replace(
            moved,
            response_of_token=self.response_of_token.to(device),
            length=self.length.to(device),
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
            "tokens": dict(self.tokens),
        }

    @staticmethod
    def from_tensors(state: Mapping[str, Any]) -> Scores:
        """What `as_tensors` gave."""
        distributions = {
            cast(tuple[Side, Pool], tuple(key.split("/"))): value
            for key, value in state["distributions"].items()
        }
        return Scores(
            state["token_logps"],
            state["response_of_token"],
            state["length"],
            distributions,
            state["tokens"],
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
        first = parts[0]
        joined = [
            torch.stack(pieces).sum(0) if summed else torch.cat(pieces)
            for summed, pieces in zip(
                first._summed(), zip(*(part.tensors() for part in parts), strict=True), strict=True
            )
        ]
        return replace(
            first.replace_tensors(joined),
            response_of_token=torch.cat(offsets),
            length=torch.cat([part.length for part in parts]),
        )

    def split_gradients(
        self, gradients: Sequence[Tensor], parts: Sequence[Scores]
    ) -> list[list[Tensor]]:
        """Gradients of a concatenation's `tensors()` as those of its parts.

        The gradient of a sum is the same for every part; the others are cut in order.
        """
        columns = []
        for place, (summed, gradient) in enumerate(zip(self._summed(), gradients, strict=True)):
            if summed:
                columns.append([gradient] * len(parts))
            else:
                columns.append(list(gradient.split([len(p.tensors()[place]) for p in parts])))
        return [list(row) for row in zip(*columns, strict=True)]

    def _summed(self) -> list[bool]:
        """For each of `tensors()`, whether a batch's is the sum of its parts', not their rows."""
        rows = [False] * (1 + len(self.tokens))
        return rows + [pool in SUMMED_POOLS for _, pool in sorted(self.distributions)]
