"""The points of a sweep over the union of several grids, which one product cannot give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


def grid_points(
    params: Mapping[str, Any], grids: Mapping[str, Mapping[str, Any]], given: Sequence[Override]
) -> list[list[str]]:
    """The overrides of every point of every grid, without repetition.

    Args:
        given: the overrides of the command line.
    """
    parser = OverridesParser.create()
    points: dict[frozenset[str], Sequence[str]] = {}
    for grid in list(grids.values()) or [{}]:
        texts = [f"{key}={value}" for key, value in {**grid, **params}.items()]
        parsed = [*parser.parse_overrides(texts), *given]
        for batch in BasicSweeper.split_arguments(parsed, None):
            for point in batch:
                # In another order it would be the same settings, in the same folder.
                points.setdefault(frozenset(point), point)
    return [list(point) for point in points.values()]
