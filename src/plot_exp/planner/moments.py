"""The moments of a run at which memory may peak, for all layers of the model.

A rehearsal with every layer of a large model takes longer than it must: layers are alike, so every
part of every moment is an affine function of their number. It is known from two rehearsals with
few layers. Between the last and the first layer's backward pass memory moves evenly from one to
the other, so that neither end being the peak, nothing between is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from plot_exp.errors import RunError
from plot_exp.planner.ledger import Ledger
from plot_exp.planner.rehearsal import Scene, rehearse
from plot_exp.planner.shape import period, with_layers

# A layer between others, which the first and the last layer stand for.
BETWEEN = "between"


@dataclass(frozen=True)
class Moment:
    """The highest moment of a phase.

    Attributes:
        parts: bytes on one device, by part.
    """

    phase: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Bytes on one device."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        flops: by phase, of one device.
    """

    moments: tuple[Moment, ...]
    flops: Mapping[str, float]

    @property
    def peak(self) -> Moment:
        """The highest of its moments."""
        return max(self.moments, key=lambda moment: moment.total)


def step_of(scene: Scene) -> Step:
    """A step of the whole model.

    Raises:
        RunError: the model's way depends on numbers, which a rehearsal has none of.
    """
    try:
        return _step_of(scene)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise RunError(
            f"model.name={scene.config.model.name}: a pass through this model depends on its "
            f"numbers ({error}), so that it cannot be planned; run a few steps and read "
            "train/memory_gb"
        ) from error


def _step_of(scene: Scene) -> Step:
    count = scene.shape.get_text_config().num_hidden_layers
    unit = period(scene.shape)
    if count <= 4 * unit:
        return _as_step(rehearse(scene))
    few, more = 2 * unit, 3 * unit
    first, second = (
        _as_step(rehearse(replace(scene, shape=with_layers(scene.shape, layers))))
        for layers in (few, more)
    )
    return _carried_on(first, second, (count - more) / (more - few))


def _as_step(ledger: Ledger) -> Step:
    moments = tuple(
        Moment(phase, _on_a_device(ledger, phase, parts))
        for phase, parts in ledger.peaks.items()
        if BETWEEN not in phase
    )
    return Step(moments, dict(ledger.flops))


def _on_a_device(ledger: Ledger, phase: str, parts: Mapping[str, float]) -> dict[str, float]:
    found = {part: size * ledger.shares.get(part, 1.0) for part, size in parts.items()}
    if ledger.gathered is not None and "optimizer" not in phase:
        found["gathered weights"] = ledger.gathered.weights
        if "backward" in phase:
            found["gathered gradients"] = ledger.gathered.gradients
    return found


def _carried_on(first: Step, second: Step, further: float) -> Step:
    """What lies `further` times as far beyond the second as that lies beyond the first."""

    def line(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        names = [*before, *(name for name in after if name not in before)]
        found = {}
        for name in names:
            one, other = before.get(name, 0.0), after.get(name, 0.0)
            found[name] = max(0.0, other + (other - one) * further)
        return found

    known = {moment.phase: moment for moment in first.moments}
    moments = tuple(
        Moment(moment.phase, line(known[moment.phase].parts, moment.parts))
        for moment in second.moments
        if moment.phase in known
    )
    return Step(moments, line(first.flops, second.flops))
