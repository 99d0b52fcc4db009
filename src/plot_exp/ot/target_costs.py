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
        place: [V], each token's place among the columns, −1 for the others.
        kept: fp32 [V, M], or None.
    """

    def __init__(self, cost: Cost, target: Tensor, least: int, most: int, memory: int) -> None:
        self.cost = cost
        support = int((target > 0).sum())
        fitting = memory // (4 * len(target))
        keeps = fitting >= min(least, support)
        count = min(support, most, fitting if keeps else most)
        self.columns = target.topk(count).indices
        self.place = torch.full((len(target),), -1, device=target.device)
        self.place[self.columns] = torch.arange(count, device=target.device)
        self.kept: Tensor | None = None
        if keeps:
            self.kept = target.new_empty(len(target), count, dtype=torch.float32)
            for rows in torch.arange(len(target), device=target.device).split(_COMPUTED_ROWS):
                self.kept[rows[0] : rows[-1] + 1] = cost.tokens(rows, self.columns)

    def to(self, tokens: Tensor, receivers: Tensor) -> Tensor:
        """Costs [n, m] between `tokens` [n] and `receivers` [m]."""
        if self.kept is None:
            return self.cost.tokens(tokens, receivers)
        places = self.place[receivers]
        outside = torch.nonzero(places < 0).flatten()
        rows = self.kept.index_select(0, tokens)
        found = rows.index_select(1, places.clamp_min(0))
        if len(outside):
            found[:, outside] = self.cost.tokens(tokens, receivers[outside])
        return found

    def lowest(self, tokens: Tensor, receivers: Tensor, g: Tensor) -> Tensor:
        """The c-transform min_j (C(v, j) − g_j), [n], over `receivers` with g [m]."""
        parts = tokens.split(_EXTENDED_ROWS)
        if not parts or not len(tokens):
            return g.new_zeros(0)
        if self.kept is None:
            return torch.cat([(self.to(part, receivers) - g).amin(1) for part in parts])
        places = self.place[receivers]
        inside, outside = places >= 0, torch.nonzero(places < 0).flatten()
        # All the columns, since to leave some out copies the block: the others never win.
        everywhere = g.new_full((len(self.columns),), -torch.inf)
        everywhere = everywhere.index_copy(0, places[inside], g[inside])
        found = torch.cat([(self.kept[part] - everywhere).amin(1) for part in parts])
        if len(outside):
            ids, level = receivers[outside], g[outside]
            beyond = [(self.cost.tokens(part, ids) - level).amin(1) for part in parts]
            found = torch.minimum(found, torch.cat(beyond))
        return found

    def highest(self, tokens: Tensor, f: Tensor, receivers: Tensor) -> Tensor:
        """max_i (f_i − C(i, j)), [m], over `tokens` [n] with f [n], at `receivers` [m].

        That is −g of the other c-transform: the potential of a token that receives.
        """
        parts = receivers.split(_COMPUTED_ROWS)
        if not len(receivers):
            return f.new_zeros(0)
        return torch.cat([(f.unsqueeze(1) - self.to(tokens, part)).amax(0) for part in parts])
