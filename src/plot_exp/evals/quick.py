"""`eval=quick`: held-out preferences, a few answers, their fluency; before and after training."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plot_exp.data.collate import Batch
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.evals.answers import Verdict, answer_metrics, judge
from plot_exp.evals.fluency import perplexity
from plot_exp.evals.preferences import (
    RememberedReference,
    ScoredExample,
    preference_metrics,
    score_examples,
)
from plot_exp.generators.base import Completion, Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.policy import Policy
from plot_exp.models.reference import Reference
from plot_exp.progress import Bar

SCORING = "scoring held-out examples"


@dataclass(frozen=True)
class Result:
    """Numbers by key, and the answers behind them.

    Attributes:
        metrics: flat keys, `val/...` and `eval/...`.
        sources, answers, verdicts: what was generated, in one order.
    """

    metrics: dict[str, float]
    sources: list[TokenisedExample]
    answers: list[Completion]
    verdicts: list[Verdict]


def evaluate_preferences(
    policy: Policy, reference: RememberedReference, batches: Sequence[Batch], beta: float, bar: Bar
) -> dict[str, float]:
    """Accuracies and margins on held-out examples, as `val/...`."""
    return preference_numbers(score_examples(policy, reference, bar(batches, SCORING)), beta)


def preference_numbers(scored: Sequence[ScoredExample], beta: float) -> dict[str, float]:
    """The same of examples that are scored already."""
    metrics = {f"val/{key}": value for key, value in preference_metrics(scored, beta).items()}
    metrics["val/count"] = float(len(scored))
    return metrics


def evaluate_answers(
    policy: Policy,
    reference: Reference,
    sources: list[TokenisedExample],
    generator: LocalGenerator,
    sampling: Sampling,
    bar: Bar,
) -> Result:
    """Answers to held-out prompts, judged, with their fluency, as `eval/...`.

    Args:
        reference: the model under which the perplexity of the answers is taken.
        sources: the examples whose prompts are answered; at least one.
    """
    prompts = [source.example.prompt for source in sources]
    answers = [
        row[0] for row in generator(prompts, sampling, bar=bar, label="answering held-out prompts")
    ]
    verdicts = [judge(source, answer) for source, answer in zip(sources, answers, strict=True)]
    found = answer_metrics(sources, answers, verdicts)
    generated = [
        TokenisedExample(
            source.example,
            generator.encode(source.example.prompt, sampling.max_new_tokens),
            (answer.ids,),
        )
        for source, answer in zip(sources, answers, strict=True)
        if answer.ids
    ]
    if generated:
        pad_id = generator.tokeniser.tokenizer.pad_token_id
        found["perplexity_under_reference"] = perplexity(
            reference, generated, generator.batch_size, pad_id
        )
    metrics = {f"eval/{key}": value for key, value in found.items()}
    return Result(metrics, sources, answers, verdicts)


def spread_over_categories(
    examples: Sequence[TokenisedExample], count: int
) -> list[TokenisedExample]:
    """`count` examples, as evenly over (dataset, category) as there are, the same each time."""
    by_category: dict[tuple[str, str], list[TokenisedExample]] = defaultdict(list)
    for item in examples:
        by_category[(item.example.dataset, item.example.category)].append(item)
    for key, items in by_category.items():
        random.Random(str(key)).shuffle(items)
    chosen: list[TokenisedExample] = []
    place = 0
    while len(chosen) < min(count, len(examples)):
        for items in by_category.values():
            if place < len(items) and len(chosen) < count:
                chosen.append(items[place])
        place += 1
    return chosen


def sample_rows(before: Result, after: Result) -> list[dict[str, Any]]:
    """The rows of samples.jsonl: prompt, the data's responses, the answers before and after."""
    rows = []
    for place, source in enumerate(after.sources):
        example = source.example
        ranked = example.desirable is None
        rows.append(
            {
                "prompt": [
                    {"role": message.role, "content": message.content} for message in example.prompt
                ],
                "category": example.category,
                "dataset": example.dataset,
                "origin": str(example.origin),
                "answer": example.answer,
                "chosen": example.responses[0] if ranked else None,
                "rejected": example.responses[-1] if len(example.responses) > 1 else None,
                "before": before.answers[place].text,
                "after": after.answers[place].text,
                "verdict_before": before.verdicts[place].words,
                "verdict_after": after.verdicts[place].words,
            }
        )
    return rows
