"""Named sweeps: the union of their grids, crossed with seeds, each point once."""

from __future__ import annotations

import itertools

import pytest

from plot_exp.config.choices import conf_dir
from plot_exp.config.combinations import check
from plot_exp.config.composition import composed, opened, points, to_config
from plot_exp.errors import UserError

SWEEPS = sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))
SIZES = sorted(path.stem for path in (conf_dir() / "size").glob("*.yaml"))


def points_of(*overrides: str) -> list[set[str]]:
    with opened() as hydra:
        master = composed(hydra, [*overrides, "hydra.mode=MULTIRUN"], multirun=True)
        return [set(point) - {"hydra.mode=MULTIRUN"} for point in points(master)]


def test_the_union_of_grids_is_crossed_with_seeds_and_has_no_point_twice() -> None:
    found = points_of("sweep=alpha")
    settings = [{"loss=dpo"}]
    for alpha in ("0.1", "0.3", "1", "3", "10"):
        settings.append({"loss=dpo+plot", f"loss.plot.alpha={alpha}"})
        settings.append({"loss=dpo+deft", f"loss.deft.weight={alpha}"})
    expected = [
        setting | {f"seed={seed}", "sweep=alpha"}
        for setting, seed in itertools.product(settings, range(5))
    ]
    assert len(found) == len(expected)
    assert all(point in found for point in expected)


def test_the_command_line_wins_over_the_grid() -> None:
    found = points_of("sweep=alpha", "seed=7", "loss.plot.alpha=0.5", "loss=dpo+plot")
    assert found
    given = {"seed=7", "loss=dpo+plot", "loss.plot.alpha=0.5"}
    assert all(given <= point for point in found)


def test_an_override_that_one_grid_has_and_another_has_not_makes_no_point_twice() -> None:
    found = points_of("sweep=anchored", "seed=7", "loss=dpo+plot", "loss.plot.alpha=1")
    folders = [tuple(sorted(point)) for point in found]
    assert len(folders) == len(set(folders)) == 7


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_named_sweep_composes_at_every_size(sweep: str, size: str) -> None:
    with opened() as hydra:
        given = [f"sweep={sweep}", f"size={size}", "hydra.mode=MULTIRUN"]
        master = composed(hydra, given, multirun=True)
        every = points(master)
        assert len(every) == len({tuple(point) for point in every}) > 1
        seeds = {text for point in every for text in point if text.startswith("seed=")}
        # A search screens with two seeds of its own; what it finds is measured by sweep=found.
        assert len(seeds) >= (2 if sweep == "search" else 5 if size == "demo" else 3)
        folder = str(master.hydra.sweep.dir)
        assert folder.endswith(sweep if size == "demo" else f"{sweep}-{size}")
        # The settings of one seed are those of every other; sizes change no grid but the model's.
        distinct = [point for point in every if min(seeds) in point]
        for point in distinct if size == "demo" else distinct[-1:]:
            check(to_config(composed(hydra, point)))


def test_an_unknown_sweep_is_named() -> None:
    with pytest.raises(UserError, match=r"sweep=alfa: no such option.*alpha"):
        points_of("sweep=alfa")


def test_a_point_stands_in_one_folder_however_it_is_logged() -> None:
    with opened() as hydra:
        folders = {
            str(composed(hydra, ["sweep=alpha", "seed=0", *extra]).hydra.sweep.subdir)
            for extra in ([], ["logger=csv"], ["logger.mode=offline", "output_dir=elsewhere"])
        }
    assert len(folders) == 1
