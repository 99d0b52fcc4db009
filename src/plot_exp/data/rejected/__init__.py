"""Rejected responses for data that have none: corrupted solutions, or graded model responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data.examples import Origin, PreferenceExample
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def supply(
    examples: Sequence[PreferenceExample],
    config: DatasetConfig,
    tally: Tally,
    *,
    cache_dir: Path,
    draw: Draw | None,
    model_identity: str | None,
    worked: Mapping[Origin, str] | None = None,
) -> list[PreferenceExample]:
    """Follows `config.rejected`.

    `given` changes nothing; `none` keeps the best response of a ranking alone; `corrupt` and
    `sampled` turn a solution with a known answer into a pair.

    Args:
        examples: of one split.
        config: the dataset's section.
        tally: receives what could not be paired, by reason.
        cache_dir: see `sources.read`.
        draw: see `sources.read`.
        model_identity: see `sources.read`.
        worked: solutions with calculator notes, by origin, where responses have lost them.
    """
    if config.rejected == "given" or not examples:
        return list(examples)
    if config.rejected == "none":
        return [_best_alone(example) for example in examples]
    for example in examples:
        if example.kind != "single":
            raise UserError(
                f"dataset.rejected={config.rejected} needs rows with one response, but "
                f"{example.origin} has rejected or labelled ones of its own; use "
                "dataset.rejected=given."
            )
    if config.rejected == "corrupt":
        # Imported where it is used: grading brings in a computer algebra system.
        from plot_exp.data.rejected.corrupt import corrupt_all

        return corrupt_all(examples, config.split_seed, tally, worked or {})
    from plot_exp.data.rejected.sampled import sample_all

    return sample_all(
        examples,
        config.sampled,
        tally,
        cache_dir=cache_dir,
        draw=draw,
        model_identity=model_identity,
    )


def _best_alone(example: PreferenceExample) -> PreferenceExample:
    if example.kind != "ranked":
        return example
    scores = None if example.scores is None else example.scores[:1]
    return replace(example, responses=example.responses[:1], scores=scores)
