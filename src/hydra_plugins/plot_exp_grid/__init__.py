"""`hydra/sweeper=grid`; Hydra takes sweepers from this namespace package alone."""

# No postponed annotations: Hydra loads this file outside sys.modules, where dataclasses cannot
# look their strings up.
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

from plot_exp.config.grids import grid_points


@dataclass
class GridSweeperConfig:
    """The sweeper's settings."""

    _target_: str = "hydra_plugins.plot_exp_grid.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    grids: dict[str, dict[str, Any]] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="grid", node=GridSweeperConfig, provider="plot_exp"
)


class GridSweeper(BasicSweeper):
    """Runs every point of every grid, each crossed with `params`; a point of two grids once.

    What the command line says wins over both.

    Args:
        max_batch_size: points that the launcher gets at once; None for all.
        params: `{"seed": "0,1,2"}`, crossed with each grid.
        grids: by a name that is for the reader only, `{"alpha": {"loss.plot.alpha": "0.1,1"}}`.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: Mapping[str, Any] | None = None,
        grids: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, dict(params or {}))
        self.grids = grids or {}

    def split_arguments(  # type: ignore[override]  # static there; here the grids are needed
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The points as batches, from `params` followed by the command line's overrides."""
        given = overrides[len(self.params) :]
        every = grid_points(self.params, self.grids, given)
        if max_batch_size is None:
            return [every]
        return [every[at : at + max_batch_size] for at in range(0, len(every), max_batch_size)]
