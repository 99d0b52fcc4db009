"""The layout of a run's batches: what `trainer.layout` asks for, as far as the models take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plot_exp.config.schema import TrainerConfig
from plot_exp.data.packing import PADDED, Layout
from plot_exp.errors import UserError
from plot_exp.models.attention import FLEX_BLOCK, attends_by_rows
from plot_exp.models.layout_support import failed_trial, obstacle
from plot_exp.models.policy import Policy
from plot_exp.workflows.device import device_of


def choose_layout(settings: TrainerConfig, policies: Sequence[Policy], longest: int) -> Layout:
    """The first of the asked layouts that every model takes; `auto` falls back to padded rows.

    Args:
        policies: the models that score the batches.
        longest: tokens of the longest prompt with its response, of all that will be scored.

    Raises:
        UserError: a layout was asked for by name, and a model cannot take it.
    """
    if settings.layout == "padded":
        return PADDED
    problem = None
    for layout in _candidates(settings, policies):
        problem = _problem(layout, policies, longest)
        if problem is None:
            return layout
    if settings.layout != "auto":
        raise UserError(
            f"trainer.layout={settings.layout}: {problem}; write trainer.layout=auto, which takes "
            "padded rows for such models"
        )
    print(f"padded rows, since {problem}", flush=True)
    return PADDED


def _candidates(settings: TrainerConfig, policies: Sequence[Policy]) -> Iterator[Layout]:
    if settings.layout == "shared":
        yield Layout("shared")
        return
    if all(attends_by_rows(policy.model) for policy in policies):
        # Where the rows are scored, which is not yet where the models are.
        on_gpu = device_of(settings).type == "cuda"
        yield Layout("packed", joined=True, multiple=FLEX_BLOCK if on_gpu else 1)
    yield Layout("packed", settings.row_capacity)


def _problem(layout: Layout, policies: Sequence[Policy], longest: int) -> str | None:
    for policy in policies:
        model: Any = policy.model
        found = obstacle(model, longest) or failed_trial(model, layout)
        if found is not None:
            return f"{type(model).__name__} {found}"
    return None
