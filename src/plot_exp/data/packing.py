"""How the examples of a batch become rows of tokens, and which tokens see which.

A layout changes no number. `padded` gives each response a row, behind its prompt. `shared` gives
each example a row: the prompt once, its responses behind it, each blind to the others, with
positions that go on from the prompt (prefix sharing, arXiv 2410.20305). `packed` puts several such
rows, blind to one another, into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from plot_exp.data.on_device import OnDevice
from plot_exp.data.tokenise import TokenisedExample

LayoutName = Literal["padded", "shared", "packed"]


@dataclass(frozen=True)
class Layout:
    """A choice of rows.

    Attributes:
        capacity: positions of a packed row; an example that is longer has a row of its own. None
            takes the longest example of the batch: a row cannot be shorter, and attention pays
            for every pair of positions in it.
        joined: all examples stand in a single row, so that nothing is padded; needs attention
            that can take them one by one (`Visibility.pieces`).
        multiple: rows are padded to a multiple of it.
    """

    name: LayoutName = "padded"
    capacity: int | None = None
    joined: bool = False
    multiple: int = 1

    def length(self, item: TokenisedExample) -> int:
        """What an example costs: its positions, or in `padded` those of its longest row."""
        responses = [len(ids) for ids in item.response_ids]
        added = max(responses) if self.name == "padded" else sum(responses)
        return len(item.prompt_ids) + added

    @property
    def pads(self) -> bool:
        """Whether short examples beside long ones cost padding."""
        return not self.joined


PADDED = Layout()


@dataclass(frozen=True, eq=False)
class Visibility(OnDevice):
    """Which tokens see which: those before them in their prompt and in their own response.

    Attributes:
        example: int32 [rows, T], the example that each token belongs to; −1 for padding.
        branch: int32 [rows, T], 0 in prompts, k in an example's k-th response.
        pieces: lengths of stretches of a single row that do not see one another; empty where rows
            are taken whole.
    """

    example: Tensor
    branch: Tensor
    pieces: tuple[int, ...] = ()

    def sees(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Bool: whether the token at `query` sees the one at `key`; indices broadcast."""
        same = self.example[row, query] == self.example[row, key]
        branch = self.branch[row, key]
        return same & (key <= query) & ((branch == 0) | (branch == self.branch[row, query]))

    def mask(self) -> Tensor:
        """Bool [rows, 1, T, T]: `sees` for every pair; padding sees padding."""
        return _mask(self.example, self.branch)[:, None]

    def piece_masks(self) -> list[Tensor | None]:
        """Bool [1, 1, T, T] for each piece; None where it is plainly causal."""
        examples, branches = (
            one.split(list(self.pieces), dim=1) for one in (self.example, self.branch)
        )
        return [
            None if _is_causal(example, branch) else _mask(example, branch)[:, None]
            for example, branch in zip(examples, branches, strict=True)
        ]


def _mask(example: Tensor, branch: Tensor) -> Tensor:
    """Bool [rows, T, T] from [rows, T]."""
    of_prompt_or_same = (branch == 0)[:, None, :] | (branch[:, :, None] == branch[:, None, :])
    visible = (example[:, :, None] == example[:, None, :]) & of_prompt_or_same
    return visible & torch.ones(visible.shape[1:], dtype=torch.bool, device=visible.device).tril()


def _is_causal(example: Tensor, branch: Tensor) -> bool:
    """One example with one response."""
    return bool((example == example[:, :1]).all()) and int(branch.max()) <= 1


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which items share a row: the longest first, each into the first row with room for it.

    Returns:
        The indices of each row's items; an item above the capacity stands alone.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        length = lengths[index]
        fitting = next((row for row, left in enumerate(room) if length <= left), None)
        if fitting is None:
            rows.append([index])
            room.append(capacity - length)
        else:
            rows[fitting].append(index)
            room[fitting] -= length
    return rows
