"""How often a judge sides with people: pairs that were labelled by hand, ranked by the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plot_exp.data.examples import Message, PreferenceExample
from plot_exp.evals.groups import group_names
from plot_exp.evals.intervals import summarise
from plot_exp.evals.length_gap import length_gap
from plot_exp.evals.reward_scores import win

Score = Callable[[Sequence[tuple[Sequence[Message], str]]], Sequence[float | None]]
"""Prompts and responses to one number each, or None where the judge gives none."""


def agreement(pairs: Sequence[PreferenceExample], score: Score) -> dict[str, float]:
    """The share of pairs whose preferred response scores higher, ties ½; by category too.

    Keys are `agreement`, `agreement/CATEGORY`, and the length numbers of `length_gap` behind
    `agreement_`, own being the response that people preferred. Pairs without both numbers are
    counted as `agreement_unscored` and enter no share.

    Args:
        pairs: ranked examples; the first and the last response are compared.
    """
    dialogues = [
        (pair.prompt, response)
        for pair in pairs
        for response in (pair.responses[0], pair.responses[-1])
    ]
    found = list(score(dialogues))
    values: dict[str, list[float]] = {"agreement": []}
    compared: list[tuple[float, float, int, int]] = []
    unscored = 0
    for place, names in enumerate(group_names(pairs)):
        preferred, other = found[2 * place], found[2 * place + 1]
        if preferred is None or other is None:
            unscored += 1
            continue
        right = win(preferred - other)
        for key in ("agreement", *(f"agreement/{name}" for name in names)):
            values.setdefault(key, []).append(right)
        responses = pairs[place].responses
        compared.append((preferred - other, right, len(responses[0]), len(responses[-1])))
    metrics: dict[str, float] = {}
    for key, shares in values.items():
        metrics |= summarise(key, shares, rate=True)
    if compared:
        split = length_gap(*zip(*compared, strict=True))
        metrics |= {f"agreement_{key}": value for key, value in split.items()}
    metrics["agreement_unscored"] = float(unscored)
    return metrics
