"""Cutting and sampling that depend on what the examples say, not on their order in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data.examples import PreferenceExample, Split
from plot_exp.data.overlap import overlapping, prompt_hash
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

OVERLAP_REMOVED = "the prompt also stands in validation"
OVERLAP_KEPT = f"{OVERLAP_REMOVED} (kept; dataset.remove_overlap=true leaves it out)"


def cut(examples: Sequence[PreferenceExample], fraction: float, seed: int) -> Split:
    """Cuts off about `fraction` for validation; examples with one prompt stay on one side.

    Prompts are ordered by a hash of the seed and their normalised text, so that the order of the
    rows does not matter.

    Raises:
        UserError: there are fewer than two different prompts.
    """
    groups: dict[str, list[PreferenceExample]] = {}
    for example in examples:
        groups.setdefault(prompt_hash(example.prompt), []).append(example)
    if len(groups) < 2:
        raise UserError(
            f"{_where(examples)} holds {len(groups)} different prompts after screening; at least "
            "2 are needed to cut off a validation split."
        )
    wanted = max(1, round(fraction * len(examples)))
    held_out: set[str] = set()
    count = 0
    for key in sorted(groups, key=lambda key: _order(seed, "cut", key)):
        if count >= wanted or len(held_out) == len(groups) - 1:
            break
        held_out.add(key)
        count += len(groups[key])
    split = Split()
    for key, members in groups.items():
        (split.validation if key in held_out else split.train).extend(members)
    positions = {id(example): index for index, example in enumerate(examples)}
    for part in (split.train, split.validation):
        part.sort(key=lambda example: positions[id(example)])
    return split


def sample(
    examples: Sequence[PreferenceExample], count: int | None, seed: int, salt: str = "limit"
) -> list[PreferenceExample]:
    """At most `count` examples, drawn by the seed and their content, in their own order."""
    if count is None or count >= len(examples):
        return list(examples)
    keys = [
        _order(seed, salt, prompt_hash(example.prompt), *example.responses) for example in examples
    ]
    chosen = sorted(range(len(examples)), key=lambda index: (keys[index], index))[:count]
    return [examples[index] for index in sorted(chosen)]


def assemble(
    groups: Iterable[Mapping[str, Sequence[PreferenceExample]]],
    config: DatasetConfig,
    tally: Tally,
) -> Split:
    """Joins the parts of a dataset and applies the limits and the overlap rule.

    Args:
        groups: for each subset its examples under `train` and `validation`, or under `all` where
            only one split is at hand; the latter are pooled and cut together.
        config: fraction, seed, limits and whether overlap is removed.
        tally: receives overlapping prompts, by reason.
    """
    split = Split()
    pool: list[PreferenceExample] = []
    for group in groups:
        split.train.extend(group.get("train", ()))
        split.validation.extend(group.get("validation", ()))
        pool.extend(group.get("all", ()))
    if pool:
        pieces = cut(pool, config.validation_fraction, config.split_seed)
        split.train.extend(pieces.train)
        split.validation.extend(pieces.validation)
    return limit(split, config, tally)


def limit(split: Split, config: DatasetConfig, tally: Tally) -> Split:
    """Samples down to the configured limits; counts or removes prompts that are on both sides."""
    validation = sample(split.validation, config.validation_limit, config.split_seed)
    train = split.train
    if config.remove_overlap:
        shared = overlapping(Split(train, validation))
        for example in shared:
            tally.drop(OVERLAP_REMOVED, example.origin)
        left_out = {id(example) for example in shared}
        train = [example for example in train if id(example) not in left_out]
    limited = Split(sample(train, config.limit, config.split_seed), validation)
    for example in overlapping(limited):
        tally.change(OVERLAP_KEPT, example.origin)
    return limited


def _order(seed: int, *parts: str) -> str:
    text = "\x1d".join((str(seed), *parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _where(examples: Sequence[PreferenceExample]) -> str:
    return examples[0].origin.file if examples else "The dataset"
