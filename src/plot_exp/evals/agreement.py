"""How often a judge sides with people: pairs that were labelled by hand, ranked by the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plot_exp.data.examples import Message, PreferenceExample
from plot_exp.evals.groups import group_names
from plot_exp.evals.intervals import summarise
from plot_exp.evals.length_gap import length_gap
from plot_exp.evals.reward_scores import win
from plot_exp.generators.base import Generator, Sampling
from plot_exp.judges.alpaca import PairPrompt, first_is_model, share_of_second
from plot_exp.progress import Bar, silent

Score = Callable[[Sequence[tuple[Sequence[Message], str]]], Sequence[float | None]]
"""Prompts and responses to one number each, or None where the judge gives none."""

TOP_LOGPROBS = 5


def agreement(pairs: Sequence[PreferenceExample], score: Score) -> dict[str, float]:
    """The share of pairs whose preferred response scores higher, ties ½: see `summary`.

    Args:
        pairs: ranked examples; the first and the last response are compared.
    """
    dialogues = [
        (pair.prompt, response)
        for pair in pairs
        for response in (pair.responses[0], pair.responses[-1])
    ]
    found = list(score(dialogues))
    margins: list[float | None] = []
    for preferred, other in zip(found[::2], found[1::2], strict=True):
        margins.append(None if preferred is None or other is None else preferred - other)
    return summary(pairs, margins)


def judge_agreement(
    pairs: Sequence[PreferenceExample],
    judge: Generator,
    prompt: PairPrompt,
    *,
    seed: int = 0,
    judge_tokens: int = 1,
    bar: Bar = silent,
) -> dict[str, float]:
    """The same of a judge that compares two responses, in an order drawn by the seed.

    A margin is 1 where the judge is sure of the preferred response, and -1 where of the other.

    Args:
        prompt: its instruction is the dialogue; of several turns each is named by its role.
    """
    dialogues, swapped = [], []
    for pair in pairs:
        asked = _instruction(pair.prompt)
        preferred_first = first_is_model(asked, seed)
        responses = (pair.responses[0], pair.responses[-1])
        dialogues.append(
            prompt.messages(asked, *(responses if preferred_first else responses[::-1]))
        )
        swapped.append(preferred_first)
    sampling = Sampling(max_new_tokens=judge_tokens, top_logprobs=TOP_LOGPROBS)
    answers = judge(dialogues, sampling, bar=bar, label="asking about labelled pairs")
    margins: list[float | None] = []
    for answer, preferred_first in zip(answers, swapped, strict=True):
        second = share_of_second(answer[0], prompt.labels)
        if second is None:
            margins.append(None)
        else:
            margins.append(1 - 2 * second if preferred_first else 2 * second - 1)
    return summary(pairs, margins)


def summary(
    pairs: Sequence[PreferenceExample], margins: Sequence[float | None]
) -> dict[str, float]:
    """Agreement with intervals from how much better each preferred response was judged.

    Keys are `agreement`, `agreement/CATEGORY`, and the length numbers of `length_gap` behind
    `agreement_`, own being the response that people preferred. Pairs without a margin are counted
    as `agreement_unscored` and enter no share.
    """
    values: dict[str, list[float]] = {"agreement": []}
    compared: list[tuple[float, float, int, int]] = []
    for pair, names, margin in zip(pairs, group_names(pairs), margins, strict=True):
        if margin is None:
            continue
        right = win(margin)
        for key in ("agreement", *(f"agreement/{name}" for name in names)):
            values.setdefault(key, []).append(right)
        compared.append((margin, right, len(pair.responses[0]), len(pair.responses[-1])))
    metrics: dict[str, float] = {}
    for key, shares in values.items():
        metrics |= summarise(key, shares, rate=True)
    if compared:
        split = length_gap(*zip(*compared, strict=True))
        metrics |= {f"agreement_{key}": value for key, value in split.items()}
    metrics["agreement_unscored"] = float(len(pairs) - len(compared))
    return metrics


def _instruction(prompt: Sequence[Message]) -> str:
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)
