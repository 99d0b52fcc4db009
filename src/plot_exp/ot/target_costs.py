"""Costs to the tokens of a fixed target, computed once where they fit in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from plot_exp.ot.costs import Cost

# Tokens for which costs are computed at once, and those whose potentials are extended at once: a
# block of costs that stays in a CPU's cache.
_COMPUTED_ROWS, _EXTENDED_ROWS = 4_096, 256


class TargetCosts:
    """Costs between any token and the heaviest tokens of the target, the columns.

    Args:
        cost: the cost between tokens.
        target: q [V].
        least: columns wanted at least, if the target has as many.
        most: columns wanted at most.
        memory: bytes that the kept costs may take; with fewer columns than `least` fit, none are
            kept and costs are computed anew each time.

    Attributes:
        columns: token ids [M], by falling mass in the target.
        kept: fp32 [V, M], or None.
    """

    def __init__(self, cost: Cost, target: Tensor, least: int, most: int, memory: int) -> None:
        self.cost = cost
        support = int((target > 0).sum())
        fitting = memory // (4 * len(target))
        keeps = fitting >= min(least, support)
        count = min(support, most, fitting if keeps else most)
        self.columns = target.topk(count).indices
        self.kept: Tensor | None = None
        if keeps:
            self.kept = target.new_empty(len(target), count, dtype=torch.float32)
            for rows in torch.arange(len(target), device=target.device).split(_COMPUTED_ROWS):
                self.kept[rows[0] : rows[-1] + 1] = cost.tokens(rows, self.columns)

    def to(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Costs [n, m] from `tokens` [n] to the columns at `places` [m]."""
        if self.kept is None:
            return self.cost.tokens(tokens, self.columns[places])
        return self.kept.index_select(0, tokens).index_select(1, places)

    def lowest(self, tokens: Tensor, places: Tensor, g: Tensor) -> Tensor:
        """The c-transform min_j (C(v, j) − g_j), [n], over the columns at `places` with g [m]."""
        parts = tokens.split(_EXTENDED_ROWS)
        if self.kept is None:
            found = [(self.to(part, places) - g).amin(1) for part in parts]
        else:
            # All the columns, since to leave some out copies the block: the others never win.
            everywhere = g.new_full((len(self.columns),), -torch.inf).index_copy(0, places, g)
            found = [(self.kept[part] - everywhere).amin(1) for part in parts]
        return torch.cat(found) if found else g.new_zeros(0)

    def highest(self, tokens: Tensor, f: Tensor, places: Tensor) -> Tensor:
        """max_i (f_i − C(i, j)), [m], over `tokens` [n] with f [n], at the columns at `places`.

        That is −g of the other c-transform: the potential of a token that receives.
        """
        if not len(places):
            return f.new_zeros(0)
        return (f.unsqueeze(1) - self.to(tokens, places)).amax(0)
