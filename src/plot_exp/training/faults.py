"""What becomes of steps that are not finite: the end of the run, or steps left out and counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from plot_exp.config.schema import TrainerConfig
from plot_exp.errors import RunError
from plot_exp.training.finite import FiniteWatch

SHOWN_SKIPS = 5


class Faults:
    """Reads what `FiniteWatch` noted, and ends the run or lets it go on.

    Args:
        settings: whether such steps are left out, and how many in a row.
        steps: of the whole run.
        log: receives how many steps were left out so far.

    Attributes:
        skipped: the steps left out so far.
    """

    def __init__(
        self,
        watch: FiniteWatch,
        settings: TrainerConfig,
        steps: int,
        log: Callable[[Mapping[str, float], int], None],
    ) -> None:
        self.watch, self.settings, self.steps, self.log = watch, settings, steps, log
        self.skipped = 0
        self._in_a_row = self._last = 0

    def read(self) -> dict[int, str]:
        """Waits for the device; the steps left out since the last reading, with the reason.

        Raises:
            RunError: a step was not finite, and the run does not leave such steps out, or has left
                out too many.
        """
        faults = self.watch.read()
        for step, fault in faults.items():
            self.skipped += 1
            every_step = step == self.steps and self.skipped == step
            if self.settings.on_nonfinite == "stop" or every_step:
                raise RunError(at_fault(step, fault, every_step))
            self._in_a_row = self._in_a_row + 1 if step == self._last + 1 else 1
            self._last = step
            if self._in_a_row >= self.settings.max_skipped_steps:
                raise RunError(too_many(step, self.settings.max_skipped_steps, fault))
            if self.skipped <= SHOWN_SKIPS:
                last = "; further ones are only counted" if self.skipped == SHOWN_SKIPS else ""
                print(f"step {step} left out: {fault}{last}", file=sys.stderr, flush=True)
            self.log({"train/skipped_steps": float(self.skipped)}, step)
        return faults


def at_fault(step: int, fault: str, every_step: bool) -> str:
    """The sentence that a run ends with whose numbers are not finite."""
    kept = "no step could be taken" if every_step else "the weights are as before the step"
    return (
        f"step {step}: the loss or its gradient is not finite ({fault}); {kept}. "
        "Lower optimizer.lr or the term's weight, change what makes the term infinite, or "
        "leave such steps out with trainer.on_nonfinite=skip"
    )


def too_many(step: int, count: int, fault: str) -> str:
    """The sentence that a run ends with which leaves out one step after another."""
    return (
        f"step {step}: {count} steps in a row were left out, which is all that "
        f"trainer.max_skipped_steps={count} allows ({fault}); the weights are those before them. "
        "Lower optimizer.lr or the term's weight, or change what makes the term infinite"
    )
