"""Checks of settings that several readers share."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from plot_exp.config.dataset import DatasetConfig
from plot_exp.errors import UserError


def check_rejected(config: DatasetConfig, allowed: Collection[str], why: str) -> None:
    """Raises a UserError unless `config.rejected` is one that the dataset can give."""
    if config.rejected not in allowed:
        raise UserError(
            f"dataset.rejected={config.rejected} does not fit dataset={config.name}: {why}; use "
            f"{' or '.join(allowed)}."
        )


def check_subset(config: DatasetConfig, known: Collection[str], where: object) -> None:
    """Raises a UserError unless `config.subset` is null or one of `known`."""
    if config.subset is None or config.subset in known:
        return
    if not known:
        raise UserError(
            f"dataset.subset={config.subset} has no meaning here: {where} has no subsets; leave it "
            "out."
        )
    nearest = get_close_matches(config.subset, list(known), n=1)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    raise UserError(
        f"dataset.subset={config.subset} is not in {where}{hint}; known: {', '.join(known)}."
    )
