"""The steps that every reader of files ends with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import rejected
from plot_exp.data.examples import Origin, PreferenceExample, Split
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.screening import screen
from plot_exp.data.splits import assemble
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def finish(
    groups: Iterable[Mapping[str, Sequence[PreferenceExample]]],
    config: DatasetConfig,
    tally: Tally,
    *,
    cache_dir: Path,
    draw: Draw | None,
    model_identity: str | None,
    worked: Mapping[Origin, str] | None = None,
) -> Split:
    """Screens, splits, limits, supplies rejected responses, and counts what is left.

    Args:
        groups: see `splits.assemble`.
        config: the dataset's section.
        tally: the dataset's tally.
        cache_dir: see `sources.read`.
        draw: see `sources.read`.
        model_identity: see `sources.read`.
        worked: solutions with calculator notes, by origin, where responses have lost them.

    Raises:
        UserError: nothing is left to train on.
    """
    screened = [
        {
            name: [example for example in part if screen(example, tally)]
            for name, part in group.items()
        }
        for group in groups
    ]
    if not any(part for group in screened for part in group.values()):
        raise _nothing_left(config, tally)
    split = assemble(screened, config, tally)
    split = Split(
        *(
            rejected.supply(
                part,
                config,
                tally,
                cache_dir=cache_dir,
                draw=draw,
                model_identity=model_identity,
                worked=worked,
            )
            for part in (split.train, split.validation)
        )
    )
    tally.keep("train", len(split.train))
    tally.keep("validation", len(split.validation))
    if not split.train:
        raise _nothing_left(config, tally)
    return split


def _nothing_left(config: DatasetConfig, tally: Tally) -> UserError:
    reasons = ", ".join(f"{count} because {reason}" for reason, count in tally.dropped.items())
    where = config.path or config.hub_name or config.name
    return UserError(
        f"No training example is left of {where}: {reasons or 'it holds none'}; is "
        f"dataset={config.name} the right reader for it?"
    )
