"""Steps left out one after another end a run after all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from endurance_runs import Run, assert_same_weights
from plot_exp.errors import RunError
from plot_exp.losses.base import TermResult


def infinite(run: Run, steps: set[int]) -> Run:
    """Makes the first term infinite in these steps."""
    term = next(iter(run.composite.terms.values()))
    plain = term.forward

    def forward(*args: Any) -> TermResult:
        result = plain(*args)
        at_fault = run.module.completed_steps + 1 in steps
        return TermResult(result.loss * torch.inf, result.metrics) if at_fault else result

    term.forward = forward  # type: ignore[method-assign]
    return run


def test_a_run_ends_at_so_many_in_a_row_with_the_weights_before_them(tmp_path: Path) -> None:
    run = infinite(
        Run(tmp_path / "run", steps=9, on_nonfinite="skip", max_skipped_steps=3),
        {2, 3, 5, 6, 7, 8, 9},
    )
    with pytest.raises(RunError, match=r"step 7: 3 steps in a row.*max_skipped_steps=3"):
        run.fit()
    assert run.module.skipped_steps == 5
    four = infinite(Run(tmp_path / "four", steps=4, on_nonfinite="skip"), {2, 3}).fit()
    assert_same_weights(four, run)


def test_as_many_with_one_taken_between_do_not(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=6, on_nonfinite="skip", max_skipped_steps=3)
    infinite(run, {1, 2, 4, 5}).fit()
    assert run.module.skipped_steps == 4
    assert run.module.completed_steps == 6
