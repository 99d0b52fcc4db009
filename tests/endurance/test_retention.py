"""The last checkpoint and the best one stay, and no more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from endurance_runs import Run, assert_same_weights
from plot_exp.errors import RunError
from plot_exp.training.retention import stored_bytes

ACCURACY = "val/reward_accuracy"


def accuracies(*values: float) -> dict[int, dict[str, float]]:
    return {step: {ACCURACY: value} for step, value in enumerate(values, 1)}


class Seen(Run):
    """Notes what lies on the disk at the beginning of every pass."""

    def __init__(self, folder: Path, **arguments: object) -> None:
        self.on_disk: dict[int, list[int]] = {}

        def note(run: Run, step: int) -> None:
            if (folder / "checkpoints").exists():
                self.on_disk[step] = run.saved()

        super().__init__(folder, disturb=note, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", (0.5, 0.9, 0.7, 0.9, math.nan, 0.8), 2),
        ("min", (0.5, 0.9, 0.4, 0.4, math.nan, 0.8), 3),
        ("max", (math.nan, 0.1, 0.2, 0.3, 0.4, 0.5), 6),
    ],
)
def test_the_last_and_the_best_stay(
    mode: str, values: tuple[float, ...], best: int, tmp_path: Path
) -> None:
    keep = {"best": ACCURACY, "mode": mode}
    run = Seen(tmp_path, validations=accuracies(*values), keep=keep, checkpoint_every=2).fit()
    assert run.saved() == sorted({best, 6})
    assert run.checkpoints.best_step == best
    assert all(len(found) <= 2 for found in run.on_disk.values())


def test_without_a_metric_the_last_alone_stays(tmp_path: Path) -> None:
    run = Seen(tmp_path, checkpoint_every=2).fit()
    assert run.on_disk == {3: [2], 4: [2], 5: [4], 6: [4]}
    assert run.saved() == [6]


def test_the_last_step_is_saved_whatever_the_distance(tmp_path: Path) -> None:
    assert Run(tmp_path, steps=5, checkpoint_every=3).fit().saved() == [5]


def test_a_resumed_run_knows_what_was_best(tmp_path: Path) -> None:
    class EndedError(Exception):
        pass

    def end(run: Run, step: int) -> None:
        if step == 5:
            raise EndedError

    keys = {"keep": {"best": ACCURACY}, "checkpoint_every": 2}
    values = accuracies(0.5, 0.9, 0.7, 0.6, 0.8, 0.7)
    with pytest.raises(EndedError):
        Run(tmp_path, validations=values, disturb=end, **keys).fit()
    rest = Run(tmp_path, validations=values, **keys).fit()
    assert sorted(rest.logged) == [5, 6]
    assert rest.saved() == [2, 6]
    assert rest.checkpoints.best_value == 0.9


@pytest.mark.parametrize("ended", [False, True])
def test_the_best_weights_are_those_of_its_step(tmp_path: Path, ended: bool) -> None:
    """In a run that is resumed after its last step too, where nothing is left to train."""
    values = accuracies(0.5, 0.9, 0.7, 0.6)
    keys = {"keep": {"best": ACCURACY}, "export_checkpoint": "best"}
    run = Run(tmp_path / "run", steps=4, validations=values, **keys).fit()
    if ended:
        run = Run(tmp_path / "run", steps=4, validations=values, **keys).fit()
    assert run.checkpoints.exported_step == 2
    assert run.module.completed_steps == 4
    assert_same_weights(Run(tmp_path / "two", steps=2).fit(), run)
    assert run.saved() == [2, 4]


def test_a_metric_that_is_not_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"keep\.best=val/acuracy: .*there are val/reward_accuracy"):
        Run(tmp_path, validations=accuracies(0.5), keep={"best": "val/acuracy"}).fit()


def test_without_a_finite_value_there_is_no_best(tmp_path: Path) -> None:
    values = accuracies(math.nan, math.nan)
    keys = {"keep": {"best": ACCURACY}, "export_checkpoint": "best"}
    run = Run(tmp_path, steps=2, validations=values, **keys)
    with pytest.raises(RunError, match="no validation gave a finite val/reward_accuracy"):
        run.fit()
    assert run.saved() == [2]


def test_tensors_that_share_memory_are_stored_once() -> None:
    weight = torch.zeros(10, dtype=torch.float64)
    nested = {"a": weight, "b": [weight.view(5, 2), {"c": torch.zeros(3)}], "d": "text"}
    assert stored_bytes(nested) == 80 + 12
