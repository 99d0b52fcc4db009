"""The numbers of rewarded responses: score, share, win rate against a reference, and length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plot_exp.evals.intervals import summarise
from plot_exp.evals.length_gap import length_gap


@dataclass(frozen=True)
class Rewarded:
    """One prompt's response and its reward; the reference's likewise, where there is one.

    Attributes:
        reward, reference_reward: None where the judge gave no finite number.
    """

    subset: str
    response: str
    reward: float | None
    reference_response: str | None = None
    reference_reward: float | None = None

    @property
    def margin(self) -> float | None:
        """Own less the reference's reward."""
        if self.reward is None or self.reference_reward is None:
            return None
        return self.reward - self.reference_reward

    @property
    def win(self) -> float | None:
        """1, 0, or ½ for equal rewards."""
        return None if self.margin is None else win(self.margin)


def win(margin: float) -> float:
    """1 for a positive margin, 0 for a negative one, ½ for none."""
    return 0.5 if margin == 0 else float(margin > 0)


def scores(rewarded: Sequence[Rewarded]) -> dict[str, float]:
    """Numbers by key, without a prefix; those of single subsets behind their name.

    `score` is the mean reward, `sigmoid` 100 · mean sigmoid, `win_rate` in percent.
    """
    values: dict[str, Callable[[Rewarded], float | None]] = {
        "score": lambda one: one.reward,
        "sigmoid": lambda one: None if one.reward is None else 100 * sigmoid(one.reward),
        "win_rate": lambda one: None if one.win is None else 100 * one.win,
        "margin": lambda one: one.margin,
    }
    groups = {"": list(rewarded)}
    for one in rewarded:
        groups.setdefault(f"/{one.subset}", []).append(one)
    found: dict[str, float] = {}
    for key, value in values.items():
        for name, members in groups.items():
            measured = [value(one) for one in members]
            known = [number for number in measured if number is not None]
            found |= summarise(f"{key}{name}", known, rate=False)
    found |= _lengths(rewarded)
    found["unscored"] = float(sum(one.reward is None for one in rewarded))
    found["ties"] = float(sum(one.win == 0.5 for one in rewarded))
    return found


def sigmoid(value: float) -> float:
    """The logistic function, without overflow."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def _lengths(rewarded: Sequence[Rewarded]) -> dict[str, float]:
    found = summarise("length", [float(len(one.response)) for one in rewarded], rate=False)
    compared = [
        (one.margin, one.win, len(one.response), len(one.reference_response))
        for one in rewarded
        if one.margin is not None and one.win is not None and one.reference_response is not None
    ]
    if not compared:
        return found
    margins, wins, own, other = zip(*compared, strict=True)
    return found | length_gap(margins, wins, own, other)
