"""Which settings are a curve over a number, and what stands on which axis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from plot_exp.report.contents import Contents
from plot_exp.report.study import figures
from plot_exp.report.study.groups import grouped
from plot_exp.report.study.sensitivity import Curve, curves, levels

RunOf = Callable[..., Contents]


def places(curve: Curve) -> list[float]:
    return [place for place, _ in curve.points]


def test_alpha_and_omega_share_one_axis_beside_the_baseline(run_of: RunOf, tmp_path: Path) -> None:
    runs = [run_of("dpo")]
    for value in (0.1, 1.0, 10.0):
        runs.append(run_of("dpo+plot", 0, {"plot": {"alpha": value}}))
        runs.append(run_of("dpo+deft", 0, {"deft": {"weight": value}}))
    groups = grouped(runs)
    found = curves(groups)
    assert {curve.label: places(curve) for curve in found} == {
        "dpo+deft, ω": [0.1, 1.0, 10.0],
        "dpo+plot, α": [0.1, 1.0, 10.0],
    }
    assert {curve.axis for curve in found} == {"factor"}
    drawn = {picture.file: picture.caption for picture in figures.draw(groups, tmp_path)}
    assert "α" in drawn["sensitivity.png"]
    assert (tmp_path / "sensitivity.svg").read_bytes()[:5] == b"<?xml"


@pytest.mark.parametrize(
    ("key", "name"),
    [("preference_limit", "data_efficiency"), ("limit", "data_efficiency_with_base")],
)
def test_data_efficiency_takes_the_examples_that_there_were(
    run_of: RunOf, tmp_path: Path, key: str, name: str
) -> None:
    runs = [
        run_of(loss, seed, dataset={key: limit}, data={"train": limit or 2550})
        for loss in ("dpo", "dpo+plot")
        for limit in (100, 300, None)
        for seed in (0, 1)
    ]
    groups = grouped(runs)
    found = curves(groups)
    assert [curve.label for curve in found] == ["dpo", "dpo+plot"]
    assert all(places(curve) == [100.0, 300.0, 2550.0] for curve in found)
    files = [picture.file for picture in figures.draw(groups, tmp_path)]
    assert f"{name}.png" in files
    assert not any(file.startswith("sensitivity") for file in files)


def test_the_anchored_target_is_a_curve_and_the_bare_one_is_not_on_it(run_of: RunOf) -> None:
    runs = [run_of("dpo"), run_of("dpo+plot", 0, {"plot": {"anchor": "none", "anchor_gamma": 1.0}})]
    for gamma in (0.1, 1.0, 10.0):
        plot = {"anchor": "reference", "anchor_gamma": gamma}
        runs.append(run_of("dpo+plot", 0, {"plot": plot}))
    (curve,) = curves(grouped(runs))
    assert places(curve) == [0.1, 1.0, 10.0]
    assert {group.settings["loss.plot.anchor"] for _, group in curve.points} == {"reference"}
    assert curve.axis == "loss.plot.anchor_gamma"


@pytest.mark.parametrize("values", [[0.1, 1.0], [True, False, True], ["a", "b", "c"]])
def test_two_numbers_switches_and_words_are_no_curve(run_of: RunOf, values: list[object]) -> None:
    runs = [run_of("dpo+plot", 0, {"plot": {"alpha": value}}) for value in values]
    assert curves(grouped(runs)) == []


def test_the_commonest_value_goes_without_saying(run_of: RunOf) -> None:
    settings = [{}, {"line": "norm"}, {"line": "random"}, {"embedding": "output"}]
    usual = {"line": "principal", "embedding": "input"}
    groups = grouped([run_of("dpo+plot", 0, {"plot": usual | one}) for one in settings])
    assert [group.label for group in groups] == [
        "dpo+plot",
        "dpo+plot plot.embedding=output",
        "dpo+plot plot.line=norm",
        "dpo+plot plot.line=random",
    ]


def test_every_baseline_of_a_curve_is_drawn_and_what_is_not_is_counted(
    run_of: RunOf, tmp_path: Path
) -> None:
    runs = []
    for loss in ("aot", "dpo", "pro", "sft"):
        runs.append(run_of(loss))
        for share in (0.1, 0.3, 1.0):
            runs.append(run_of(f"{loss}+plot", 0, {"plot": {"gradient_share": share}}))
    runs.append(run_of("ipo"))
    groups = grouped(runs)
    assert [group.loss for group in levels(groups, curves(groups))] == ["aot", "dpo", "pro", "sft"]
    captions = {picture.file: picture.caption for picture in figures.draw(groups, tmp_path)}
    assert "1 more in the table" in captions["sensitivity_plot_gradient_share.png"]
