"""Which tokens give mass to which, before and after training: one run of each setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from plot_exp.report import flows
from plot_exp.report.contents import Contents
from plot_exp.report.study.groups import Group
from plot_exp.report.style import Picture

MOST_SETTINGS = 6


def draw(groups: Sequence[Group], folder: Path) -> Iterator[Picture]:
    """A picture a setting: the run of its least seed, base and trained side by side.

    Where there are more settings than fit, one of each loss comes first.

    Raises:
        RunError: the disk cannot be written.
    """
    found = [(group, *chosen) for group in groups if (chosen := _chosen(group))]
    for place, (group, seed, run) in enumerate(_one_a_loss_first(found)[:MOST_SETTINGS]):
        picture = flows.draw_one(run.distribution or {}, folder, f"flows_{place + 1}")
        if picture is None:
            continue
        caption = f"{group.label}, seed {seed}. {picture.caption}"
        if place + 1 == MOST_SETTINGS < len(found):
            caption += f". Further settings ({len(found) - MOST_SETTINGS}): in their runs' reports"
        yield replace(picture, caption=caption)


def _chosen(group: Group) -> tuple[int, Contents] | None:
    """The least seed whose run holds flows."""
    for seed, run in sorted(group.runs.items()):
        if (run.distribution or {}).get("flows"):
            return seed, run
    return None


def _one_a_loss_first(
    found: Sequence[tuple[Group, int, Contents]],
) -> list[tuple[Group, int, Contents]]:
    firsts = list({one[0].loss: one for one in reversed(found)}.values())[::-1]
    return [*firsts, *(one for one in found if one not in firsts)]
