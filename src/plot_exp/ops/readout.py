"""What is read out of logits, and the gradient of all of it in them, a block of rows at a time.

Every output is a function of the log-probabilities l [n, V] of a block; p = exp(l). With A the
gradient of the loss in l, each output adding its own part, that in the logits is A − p·ΣA. The
parts of most outputs have the factor p, A = p·W + D, so

    dlogits = p·(W − t) + D    with t = Σ_v (p·W + D):

    token_logps        D_y = g              entropy        W = −g·l
    reference_kl       D = −g·p_ref         label_cost     W = g·cost
    a pool of p        W = G[its row]       a pool of l    D = G[its row]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.ops.embedding import FrozenEmbedding
from plot_exp.ops.head import Adjustment
from plot_exp.ops.pooling import Pooling
from plot_exp.ops.reference_states import ReferenceStates
from plot_exp.ops.scores import Pool, Request, Side, TokenOutput

OutputKey = str | tuple[Side, Pool]
# Outputs of the backbone alone.
STATES: frozenset[TokenOutput] = frozenset({"hidden", "predicting_hidden"})
# Far below the logarithm of any number above zero.
SURELY_ZERO = -1e4


@dataclass(frozen=True)
class Readout:
    """What a request reads out of the logits of a batch's N predicting positions.

    Attributes:
        targets: [N] the scored tokens.
        tokens: the outputs of each token.
        pools: where distributions are added up.
        adjustment: what turns bare logits into the model's.
    """

    targets: Tensor
    tokens: tuple[TokenOutput, ...]
    pools: dict[tuple[Side, Pool], Pooling]
    adjustment: Adjustment
    embedding: FrozenEmbedding | None = None
    reference: ReferenceStates | None = None

    @staticmethod
    def of(
        batch: Batch, request: Request, adjustment: Adjustment, reference: ReferenceStates | None
    ) -> Readout:
        """The readout of a request on a batch."""
        return Readout(
            batch.targets,
            tuple(sorted(request.tokens - STATES)),
            {key: Pooling.of(batch, *key) for key in sorted(request.distributions)},
            adjustment,
            request.embedding,
            reference,
        )

    @property
    def keys(self) -> list[OutputKey]:
        """The names of the outputs, in the order they are given in."""
        return ["token_logps", *self.tokens, *self.pools]

    def room(self, vocab_size: int, logits: Tensor) -> dict[OutputKey, Tensor]:
        """Space for the outputs, zero so far, beside some logits."""
        dtype, count = precision(logits), len(self.targets)
        found: dict[OutputKey, Tensor] = {
            name: logits.new_zeros(count, dtype=dtype) for name in ("token_logps", *self.tokens)
        }
        for key, pooling in self.pools.items():
            found[key] = logits.new_zeros(pooling.rows, vocab_size, dtype=dtype)
        return found

    def results(self, outputs: Mapping[OutputKey, Tensor]) -> tuple[Tensor, ...]:
        """The finished outputs, in the order of `keys`."""
        return tuple(
            outputs[key] if isinstance(key, str) else self.pools[key].result(outputs[key])
            for key in self.keys
        )

    def blocks(
        self, rows: slice, logits: Tensor, reference: Tensor | None, size: int
    ) -> Iterator[tuple[slice, Block]]:
        """The blocks of a chunk of bare logits, with their places in it.

        Args:
            rows: the chunk's positions.
            reference: the reference's logits of the chunk.
        """
        buffer = torch.empty(
            min(size, len(logits)), logits.shape[-1], dtype=precision(logits), device=logits.device
        )
        costs = self._costs(rows, buffer.dtype)
        for start in range(0, len(logits), size):
            at = slice(start, min(start + size, len(logits)))
            yield (
                at,
                Block(
                    slice(rows.start + at.start, rows.start + at.stop),
                    self._adjusted(logits[at]),
                    buffer[: at.stop - at.start],
                    None if costs is None else costs[at],
                    None if reference is None else reference[at],
                ),
            )

    def reference_logits(self, rows: slice) -> Tensor | None:
        """The reference's logits of some positions, where they are needed."""
        if self.reference is None or "reference_kl" not in self.tokens:
            return None
        return self.reference.logits(rows)

    def read(self, block: Block, outputs: Mapping[OutputKey, Tensor]) -> None:
        """Writes a block's share of the outputs."""
        rows, p = block.rows, block.p
        outputs["token_logps"][rows] = block.token_logps(self.targets[rows])
        for name in self.tokens:
            if name == "entropy":
                outputs[name][rows] = -(p * block.floored_logps).sum(-1)
            elif name == "reference_kl":
                outputs[name][rows] = block.divergence()
            else:
                outputs[name][rows] = (p * block.costs).sum(-1)
        for key, pooling in self.pools.items():
            pooling.add(rows, block.logps if pooling.logarithm else p, outputs[key])

    def pull(self, block: Block, gradients: Mapping[OutputKey, Tensor], into: Tensor) -> None:
        """Writes the gradient in a block's bare logits.

        Args:
            gradients: those in the outputs that have one.
            into: [n, V], which may be the block's own logits.
        """
        weight, direct = self._parts(block, gradients)
        outer = self._outer_parts(block, gradients)
        p, of_label = block.p, gradients.get("token_logps")
        total = p.new_zeros(len(p)) if direct is None else direct.sum(-1)
        if of_label is not None:
            total = total + of_label[block.rows]
        if weight is not None:
            total = total + (p * weight).sum(-1)
        for rows, tokens in outer:
            total = total + rows * (p @ tokens)
        factor = -total[:, None] if weight is None else weight.sub_(total[:, None])
        for rows, tokens in outer:
            factor = torch.addr(factor.expand_as(p), rows, tokens)
        in_place = self.adjustment.changes or into.dtype != p.dtype
        dlogits = torch.mul(p, factor, out=p if in_place else into)
        if direct is not None:
            dlogits.add_(direct)
        if of_label is not None:
            target = self.targets[block.rows, None]
            dlogits.scatter_add_(1, target, of_label[block.rows, None])
        if in_place:
            into.copy_(self.adjustment.pull_(dlogits, block.logits))

    def _parts(
        self, block: Block, gradients: Mapping[OutputKey, Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """W and D [n, V] of a block, but for the labels' own; None for zero."""
        weight: Tensor | None = None
        direct: Tensor | None = None
        rows = block.rows
        for name in self.tokens:
            if name not in gradients:
                continue
            g = gradients[name][rows, None]
            if name == "reference_kl":
                direct = _plus(direct, -g * block.reference_p)
            else:
                of = -block.floored_logps if name == "entropy" else block.costs
                weight = _plus(weight, g * of)
        for key, pooling in self.pools.items():
            if key not in gradients:
                continue
            if pooling.logarithm:
                direct = _plus(direct, pooling.spread(rows, gradients[key]))
            elif not pooling.whole:
                weight = _plus(weight, pooling.spread(rows, gradients[key]))
        return weight, direct

    def _outer_parts(
        self, block: Block, gradients: Mapping[OutputKey, Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """The rest of W, of sums over the batch: outer products of rows [n] and tokens [V]."""
        return [
            (pooling.share(block.rows, gradients[key].dtype), gradients[key])
            for key, pooling in self.pools.items()
            if key in gradients and pooling.whole and not pooling.logarithm
        ]

    def _adjusted(self, logits: Tensor) -> Tensor:
        exact = logits.to(precision(logits))
        if not self.adjustment.changes:
            return exact
        return self.adjustment.apply_(exact.clone() if exact is logits else exact)

    def _costs(self, rows: slice, dtype: torch.dtype) -> Tensor | None:
        if self.embedding is None or "label_cost" not in self.tokens:
            return None
        unit = self.embedding.beside(self.targets.new_empty((), dtype=dtype))
        return (unit[self.targets[rows]] @ unit.T).neg_().add_(1)


class Block:
    """Some positions' logits, and what follows from them.

    Args:
        rows: which positions.
        logits: [n, V] the model's own, at least fp32.
        buffer: [n, V] where p is written.
        costs: [n, V] of moving mass from each token to the label.
        reference: [n, V] the reference's logits.
    """

    def __init__(
        self,
        rows: slice,
        logits: Tensor,
        buffer: Tensor,
        costs: Tensor | None,
        reference: Tensor | None,
    ) -> None:
        self.rows, self.logits = rows, logits
        self._costs, self._reference = costs, reference
        self.p = torch.softmax(logits, dim=-1, out=buffer)

    def token_logps(self, targets: Tensor) -> Tensor:
        """[n] l at the labels. p's largest entry is 1/Σ exp(logits − max) to the last bit."""
        highest = self.logits.amax(-1)
        return (
            self.logits.gather(-1, targets[:, None]).squeeze(-1) - highest + self.p.amax(-1).log()
        )

    @cached_property
    def logps(self) -> Tensor:
        """[n, V] l."""
        return torch.log_softmax(self.logits, dim=-1)

    @cached_property
    def floored_logps(self) -> Tensor:
        """[n, V] l where p is above zero, and finite where it is not, so that p·l is 0 there."""
        return self.logps.clamp(min=SURELY_ZERO)

    @property
    def costs(self) -> Tensor:
        """[n, V] of moving mass from each token to the label."""
        assert self._costs is not None
        return self._costs

    @property
    def reference_p(self) -> Tensor:
        """[n, V] the reference's softmax."""
        assert self._reference is not None
        return torch.softmax(self._reference, dim=-1, dtype=self.p.dtype)

    def divergence(self) -> Tensor:
        """[n] KL of p from the reference's softmax."""
        assert self._reference is not None
        reference = torch.log_softmax(self._reference, dim=-1, dtype=self.p.dtype)
        mass = reference.exp()
        # A token that the reference rules out adds nothing, even where p does too.
        return reference.sub_(self.logps).masked_fill_(mass == 0, 0).mul_(mass).sum(-1)


def precision(logits: Tensor) -> torch.dtype:
    """What log-probabilities are computed in: fp32, or fp64 for a double model."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _plus(sum_: Tensor | None, part: Tensor) -> Tensor:
    return part if sum_ is None else sum_.add_(part)
