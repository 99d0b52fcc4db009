"""Distributions at the response positions of one side, added up over a batch or a response."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.ops.scores import SUMMED_POOLS, Pool, Side


@dataclass(frozen=True)
class Pooling:
    """Which output row each of N positions is added to.

    Attributes:
        row: [N]; for positions of the other side `rows - 1`, a row that is thrown away.
        rows: output rows, that one included.
        logarithm: log-probabilities are added, not probabilities.
        whole: there is a single row but for the other side's.
    """

    row: Tensor
    rows: int
    logarithm: bool
    whole: bool

    @staticmethod
    def of(batch: Batch, side: Side, pool: Pool) -> Pooling:
        """The pooling of one side."""
        of_side = batch.responses.chosen if side == "chosen" else batch.responses.rejected
        token_of_side = of_side[batch.response_of_token]
        if pool in SUMMED_POOLS:
            place, count = torch.zeros_like(batch.targets), 1
        elif pool == "position":
            place = token_of_side.long().cumsum(0) - 1
            count = int(token_of_side.sum())
        else:
            place = (of_side.long().cumsum(0) - 1)[batch.response_of_token]
            count = int(of_side.sum())
        row = torch.where(token_of_side, place, torch.full_like(place, count))
        return Pooling(row, count + 1, pool.startswith("log_"), pool in SUMMED_POOLS)

    def add(self, positions: slice, values: Tensor, total: Tensor) -> None:
        """Adds values [n, V] of some positions to the total [rows, V]."""
        row = self.row[positions]
        if not self.whole:
            total.index_add_(0, row, values)
        elif self.logarithm:
            # A product would make 0·−∞ of the other side's.
            total[0] += values.masked_fill((row != 0)[:, None], 0).sum(0)
        else:
            total[0] += self.share(positions, values.dtype) @ values

    def share(self, positions: slice, dtype: torch.dtype) -> Tensor:
        """[n] 1 for the positions of this side, 0 for the other's, where there is a single row."""
        return (self.row[positions] == 0).to(dtype)

    def spread(self, positions: slice, gradient: Tensor) -> Tensor:
        """The gradient in `result` as that in the values [n, V] of some positions."""
        rows = gradient[None] if self.whole else gradient
        row = self.row[positions]
        if not len(rows):
            return rows.new_zeros(len(row), rows.shape[-1])
        found = rows[row.clamp(max=len(rows) - 1)]
        return found.masked_fill_((row == len(rows))[:, None], 0)

    def result(self, total: Tensor) -> Tensor:
        """What is given of a total: [V] of a single row."""
        return total[0] if self.whole else total[:-1]
