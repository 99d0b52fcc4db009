"""The embedded demo preference set, generated from `dataset.split_seed`."""

from __future__ import annotations

from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data.demo import generate
from plot_exp.data.examples import Split
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.sources.pipeline import finish
from plot_exp.data.sources.settings import check_rejected
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError


def check(config: DatasetConfig) -> None:
    """See `sources.check`."""
    check_rejected(config, ("given", "none"), "it has rejected responses of its own")
    for key in ("path", "hub_name", "subset"):
        if getattr(config, key) is not None:
            raise UserError(
                f"dataset.{key} has no meaning for dataset=demo, which is generated; leave it out, "
                "or choose another dataset (dataset=jsonl reads your own files)."
            )


def read(
    config: DatasetConfig,
    tallies: list[Tally],
    *,
    cache_dir: Path | None = None,
    draw: Draw | None = None,
    model_identity: str | None = None,
) -> Split:
    """See `sources.read`; the validation part has templates of its own and is 15 % of the size."""
    check(config)
    tally = Tally(config.name)
    tallies.append(tally)
    split = generate(config.size, config.split_seed)
    return finish(
        [{"train": split.train, "validation": split.validation}],
        config,
        tally,
        cache_dir=cache_dir or Path(),
        draw=draw,
        model_identity=model_identity,
    )
