"""Several datasets trained on together, each kept apart by its own name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import sources
from plot_exp.data.examples import PreferenceExample, Split
from plot_exp.data.overlap import overlapping
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.splits import OVERLAP_KEPT, OVERLAP_REMOVED, sample
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

BY_WEIGHT = "left out so that the shares of the mix follow the weights"
BY_LIMIT = "left out by the limit of the mix"


def check(config: DatasetConfig) -> None:
    """See `sources.check`; every source is checked as a dataset of its own."""
    if not config.sources:
        raise UserError(
            "dataset=mix needs dataset.sources: a name for each source, with a section as of any "
            "dataset and a weight; for example dataset.sources.hh.name=hh_rlhf."
        )
    for key in ("path", "hub_name", "subset"):
        if getattr(config, key) is not None:
            raise UserError(f"dataset.{key} has no meaning for a mix; set it in dataset.sources.")
    if config.rejected != "given":
        raise UserError("dataset.rejected has no meaning for a mix; set it in dataset.sources.")
    for key, source in config.sources.items():
        if source.name == "mix":
            raise UserError(f"dataset.sources.{key} is a mix within a mix; name its sources here.")
        try:
            sources.check(source)
        except UserError as error:
            raise UserError(f"dataset.sources.{key}: {error}") from error


def read(
    config: DatasetConfig,
    tallies: list[Tally],
    *,
    cache_dir: Path,
    draw: Draw | None = None,
    model_identity: str | None = None,
) -> Split:
    """See `sources.read`; examples carry the source's key as their dataset.

    The training set is the largest in which the sources' shares follow their weights and no
    example stands twice. Validation keeps every example of every source.
    """
    check(config)
    splits: dict[str, Split] = {}
    own: dict[str, Tally] = {}
    for key, source in (config.sources or {}).items():
        found: list[Tally] = []
        try:
            split = sources.read(
                source, found, cache_dir=cache_dir, draw=draw, model_identity=model_identity
            )
        except UserError as error:
            raise UserError(f"dataset.sources.{key}: {error}") from error
        for tally in found:
            tally.dataset = key
        tallies.extend(found)
        own[key] = found[0]
        splits[key] = Split(_renamed(split.train, key), _renamed(split.validation, key))
    _remove_overlap(splits, own, config.remove_overlap)
    weighed = _weighed(splits, config, own)
    validation = [example for split in splits.values() for example in split.validation]
    limited = sample(validation, config.validation_limit, config.split_seed)
    _count_left_out(validation, limited, own, BY_LIMIT)
    for key, tally in own.items():
        tally.kept["train"] = sum(example.dataset == key for example in weighed)
        tally.kept["validation"] = sum(example.dataset == key for example in limited)
    return Split(weighed, limited)


def shares(sizes: dict[str, int], weights: dict[str, float], limit: int | None) -> dict[str, int]:
    """How many examples each source gives: as many as its weight and every size allow.

    Every source gives at least one.

    Args:
        sizes: examples at hand.
        weights: positive, of any sum.
        limit: at most so many in all, or None.
    """
    total = min(sizes[key] * sum(weights.values()) / weight for key, weight in weights.items())
    if limit is not None:
        total = min(total, limit)
    whole = sum(weights.values())
    # Rounding down never asks for more than is there.
    counts = {key: max(1, int(total * weight / whole + 1e-9)) for key, weight in weights.items()}
    # What a small source is given beyond its share comes from the largest.
    while limit is not None and sum(counts.values()) > max(limit, len(counts)):
        counts[max(counts, key=lambda key: counts[key])] -= 1
    return counts


def _weighed(
    splits: dict[str, Split], config: DatasetConfig, tallies: dict[str, Tally]
) -> list[PreferenceExample]:
    counts = shares(
        {key: len(split.train) for key, split in splits.items()},
        {key: source.weight for key, source in (config.sources or {}).items()},
        config.limit,
    )
    chosen = []
    for key, split in splits.items():
        kept = sample(split.train, counts[key], config.split_seed, salt="mix")
        _count_left_out(split.train, kept, tallies, BY_WEIGHT)
        chosen.extend(kept)
    return chosen


def _remove_overlap(splits: dict[str, Split], tallies: dict[str, Tally], remove: bool) -> None:
    """Finds training prompts that stand in another source's validation; each knows its own."""
    everything = Split(validation=[e for split in splits.values() for e in split.validation])
    for key, split in splits.items():
        own = {id(example) for example in overlapping(split)}
        shared = [
            example
            for example in overlapping(Split(split.train, everything.validation))
            if id(example) not in own
        ]
        for example in shared:
            if remove:
                tallies[key].drop(OVERLAP_REMOVED, example.origin)
            else:
                tallies[key].change(OVERLAP_KEPT, example.origin)
        if remove:
            left_out = own | {id(example) for example in shared}
            split.train = [example for example in split.train if id(example) not in left_out]
            if not split.train:
                raise UserError(
                    f"dataset.sources.{key} has no training example left without overlap."
                )


def _count_left_out(
    before: list[PreferenceExample],
    after: list[PreferenceExample],
    tallies: dict[str, Tally],
    reason: str,
) -> None:
    kept = {id(example) for example in after}
    for example in before:
        if id(example) not in kept:
            tallies[example.dataset].drop(reason, example.origin)


def _renamed(examples: list[PreferenceExample], key: str) -> list[PreferenceExample]:
    return [replace(example, dataset=key) for example in examples]
