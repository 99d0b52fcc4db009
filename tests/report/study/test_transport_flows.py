"""Flows of one run a setting, the loss's first setting before further ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from plot_exp.report import flows
from plot_exp.report.contents import Contents
from plot_exp.report.study import transport_flows
from plot_exp.report.study.groups import grouped
from plot_exp.report.style import Picture

RunOf = Callable[..., Contents]
ROWS = [
    {"giver": "a", "giver_id": 3, "receiver": " b", "receiver_id": 4,
     "mass": 0.02, "share": 0.5, "cost": cost}
    for cost in (1.25, 0.5)
]  # fmt: skip
FLOWS = {"flows": {time: {"mass": 0.04, "full": ROWS} for time in ("before", "after")}}


def test_one_picture_a_setting_with_its_seed(run_of: RunOf, tmp_path: Path) -> None:
    runs = [run_of("dpo+plot", seed, distribution=FLOWS if seed else None) for seed in (0, 2, 1)]
    runs += [run_of("dpo", 0, distribution=FLOWS), run_of("sft", 0)]
    drawn = list(transport_flows.draw(grouped(runs), tmp_path))
    assert [picture.file for picture in drawn] == ["flows_1.png", "flows_2.png"]
    assert drawn[0].caption.startswith("dpo, seed 0. ")
    assert drawn[1].caption.startswith("dpo+plot, seed 1. ")
    svg = (tmp_path / "flows_2.svg").read_text(encoding="utf-8")
    for words in ("cost of moving a unit of mass", "After training: 100 % of the mass 0.040"):
        assert words in svg


def test_each_loss_comes_before_a_second_setting_of_one(
    run_of: RunOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn_at_once(found: object, folder: Path, name: str) -> Picture:
        return Picture(f"{name}.png", "which tokens")

    monkeypatch.setattr(flows, "draw_one", drawn_at_once)
    runs = [
        run_of("dpo+plot", 0, {"plot": {"alpha": float(alpha)}}, distribution=FLOWS)
        for alpha in range(1, transport_flows.MOST_SETTINGS + 2)
    ]
    runs.append(run_of("sft", 0, distribution=FLOWS))
    drawn = list(transport_flows.draw(grouped(runs), tmp_path))
    assert len(drawn) == transport_flows.MOST_SETTINGS
    assert drawn[1].caption.startswith("sft, seed 0")
    assert drawn[-1].caption.endswith("Further settings (2): in their runs' reports")
