"""Rejected responses drawn from a model and graded: right ones are paired with wrong ones."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plot_exp.config.dataset import SampledRejections
from plot_exp.data.examples import Message, PreferenceExample
from plot_exp.data.tally import Tally
from plot_exp.errors import RunError, UserError

Draw = Callable[[Sequence[tuple[Message, ...]], SampledRejections], list[list[str]]]

NO_ANSWER = "no final answer is known, so drawn responses could not be graded"
NO_WRONG = "the model drew no wrong response"
GOLD_CHOSEN = "the model drew no right response, so the gold solution is chosen"


def sample_all(
    examples: Sequence[PreferenceExample],
    settings: SampledRejections,
    tally: Tally,
    *,
    cache_dir: Path,
    draw: Draw | None,
    model_identity: str | None,
) -> list[PreferenceExample]:
    """Pairs the first right with the first wrong response of a model to each prompt.

    Blank responses are neither. The drawn responses and their grades are kept as JSON Lines in
    `cache_dir/sampled-HASH.jsonl` and used again for the same prompts, settings and model.

    Args:
        examples: with one response, the gold solution, and a known answer each.
        settings: how to draw.
        tally: receives prompts without a wrong response, and uses of the gold solution.
        cache_dir: created where missing.
        draw: gives `settings.samples` responses for each prompt.
        model_identity: tells the model from others in the cache.
    """
    usable = []
    for example in examples:
        if example.answer is None:
            tally.drop(NO_ANSWER, example.origin)
        else:
            usable.append(example)
    if not usable:
        return []
    pairs = []
    for example, drawn in zip(
        usable, _drawn(usable, settings, cache_dir, draw, model_identity), strict=True
    ):
        pair = _pair(example, drawn, tally)
        if pair is not None:
            pairs.append(pair)
    return pairs


def _pair(
    example: PreferenceExample, drawn: dict[str, Any], tally: Tally
) -> PreferenceExample | None:
    graded = [
        (text.strip(), right)
        for text, right in zip(drawn["responses"], drawn["right"], strict=True)
        if text.strip()
    ]
    wrong = next((text for text, right in graded if not right), None)
    if wrong is None:
        tally.drop(NO_WRONG, example.origin)
        return None
    chosen = next((text for text, right in graded if right), None)
    if chosen is None:
        tally.change(GOLD_CHOSEN, example.origin)
        chosen = example.responses[0]
    return replace(example, responses=(chosen, wrong), scores=None)


def _drawn(
    examples: Sequence[PreferenceExample],
    settings: SampledRejections,
    cache_dir: Path,
    draw: Draw | None,
    model_identity: str | None,
) -> list[dict[str, Any]]:
    """One record for each example: prompt, answer, responses and whether each is right."""
    file = cache_dir / f"sampled-{_key(examples, settings, model_identity)}.jsonl"
    cached = _load(file, len(examples), settings.samples)
    if cached is not None:
        return cached
    if draw is None:
        raise UserError(
            "dataset.rejected=sampled needs a model to draw from, and this task loads none; use "
            "dataset.rejected=corrupt or task=train."
        )
    from plot_exp.judges.answers import grade

    prompts = [example.prompt for example in examples]
    responses = draw(prompts, settings)
    counts = {len(texts) for texts in responses}
    if len(responses) != len(prompts) or counts != {settings.samples}:
        raise RunError(
            f"Drawing {settings.samples} responses for each of {len(prompts)} prompts gave "
            f"{len(responses)} lists of {sorted(counts)} responses."
        )
    records = []
    for example, texts in zip(examples, responses, strict=True):
        answer = example.answer or ""
        records.append(
            {
                "prompt": [
                    {"role": message.role, "content": message.content} for message in example.prompt
                ],
                "answer": answer,
                "responses": texts,
                "right": [grade(example.dataset, text, answer) for text in texts],
            }
        )
    _save(file, records)
    return records


def _key(
    examples: Sequence[PreferenceExample], settings: SampledRejections, model_identity: str | None
) -> str:
    what = {
        "model": model_identity,
        "settings": settings.model_dump(mode="json"),
        "prompts": [
            [example.dataset, example.answer]
            + [[message.role, message.content] for message in example.prompt]
            for example in examples
        ],
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _load(file: Path, prompts: int, samples: int) -> list[dict[str, Any]] | None:
    """The cached records, or None where there are none or the file was edited out of shape."""
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            records = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return None
    whole = len(records) == prompts and all(
        isinstance(record, dict)
        and len(record.get("responses", ())) == len(record.get("right", ())) == samples
        for record in records
    )
    return records if whole else None


def _save(file: Path, records: Sequence[dict[str, Any]]) -> None:
    """Writes the whole file or nothing."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".part")
    except OSError as error:
        raise RunError(f"{file.parent} cannot be written: {error.strerror or error}.") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            for record in records:
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
        Path(name).replace(file)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise RunError(f"{file} cannot be written: {error.strerror or error}.") from error
