"""What stands before the first step of a run: data, policy, reference and terms."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from plot_exp.config.schema import Config
from plot_exp.losses.composite import Composite, build
from plot_exp.losses.context import Context
from plot_exp.models.policy import Policy
from plot_exp.models.reference import Reference
from plot_exp.progress import Bar
from plot_exp.workflows.context import build_context
from plot_exp.workflows.devices import Devices
from plot_exp.workflows.filtering import filter_training
from plot_exp.workflows.prepare import Prepared, prepare
from plot_exp.workflows.reference import Form, open_reference, settle_reference


@dataclass(frozen=True)
class Opened:
    """A run that can begin.

    Attributes:
        start: the reference as it was opened: it may be the policy itself, until that moves.
        reference: in the form that it has while the policy is trained.
    """

    prepared: Prepared
    start: Reference
    reference: Reference
    composite: Composite
    context: Context


def open_run(config: Config, run_dir: Path, devices: Devices, bar: Bar) -> Opened:
    """Reads the data, opens the models, and puts them on the run's devices.

    What is kept in the cache is made by the first process, while the others wait.

    Raises:
        UserError: something that the configuration names cannot be used.
    """
    prepared, start = devices.opened("data", lambda: _placed(config, devices, bar))
    tokeniser, counted = prepared.start.tokeniser, prepared.train
    context = build_context(config, start, tokeniser, counted, prepared.layout)
    filter_training(config, prepared, start, context, bar)
    composite = build(config.loss, context)
    earlier = _reference_before(run_dir) if config.resume else None
    earlier = devices.session.share("reference form", earlier)
    reference = settle_reference(config, start, prepared, composite, bar, earlier)
    context = build_context(config, reference, tokeniser, counted, prepared.layout)
    return Opened(prepared, start, reference, composite, context)


def _placed(config: Config, devices: Devices, bar: Bar) -> tuple[Prepared, Reference]:
    """The data, and the models on the run's devices."""
    prepared = prepare(config, bar)
    prepared.start = replace(prepared.start, devices=devices)
    start = open_reference(config, prepared.start)
    if isinstance(start, Policy):
        prepared.choose_layout(config, start)
    devices.idle_with(prepared.collate([min(prepared.train, key=prepared.layout.length)]))
    for policy in (prepared.start.policy, start):
        if isinstance(policy, Policy):
            devices.place(policy)
    return prepared, start


def _reference_before(run_dir: Path) -> Form | None:
    """The reference's form in a run that is resumed; None where it had not come so far."""
    try:
        facts = json.loads((run_dir / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts.get("reference_form") if isinstance(facts, dict) else None
