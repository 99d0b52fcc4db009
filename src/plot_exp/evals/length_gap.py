"""Does length explain a preference? Gap, margin by the longer side, win rate at matched length."""

from __future__ import annotations

from collections.abc import Sequence

from plot_exp.evals.intervals import summarise

# Two texts match in length where the longer has at most this much more than the shorter.
MATCHED = 0.1


def length_gap(
    margins: Sequence[float],
    wins: Sequence[float],
    own_lengths: Sequence[int],
    other_lengths: Sequence[int],
) -> dict[str, float]:
    """How a comparison depends on length; keys with counts and intervals.

    `length_gap` is own less other in characters; `margin/own_longer`, `margin/other_longer` and
    `margin/same_length` split the margin; `matched_win_rate` is over pairs whose lengths differ by
    at most a tenth. What has no pair has no key.

    Args:
        margins: [N] how much better the own text was judged.
        wins: [N] 1 where it won, 0 where it lost, ½ for a tie, or a probability.
        own_lengths, other_lengths: [N] characters.
    """
    groups: dict[str, list[float]] = {"own_longer": [], "other_longer": [], "same_length": []}
    matched: list[float] = []
    gaps: list[float] = []
    for margin, win, own, other in zip(margins, wins, own_lengths, other_lengths, strict=True):
        side = "own_longer" if own > other else "other_longer" if own < other else "same_length"
        groups[side].append(margin)
        gaps.append(float(own - other))
        if max(own, other) <= (1 + MATCHED) * min(own, other):
            matched.append(win)
    found = summarise("length_gap", gaps, rate=False)
    for side, values in groups.items():
        found |= summarise(f"margin/{side}", values, rate=False)
    return found | summarise("matched_win_rate", matched, rate=True)
