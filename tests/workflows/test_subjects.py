"""What tells the models of benchmarks apart: weights, and the seed only where it draws them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from plot_exp.workflows import evaluate
from plot_exp.workflows.evaluate import Evaluation


@pytest.fixture
def identity_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`identity_of(seed, weights)`: of a run's start that lies in a folder."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(evaluate, "LocalGenerator", lambda *_, **__: None)
    start = SimpleNamespace(
        policy=object(), tokeniser=SimpleNamespace(template="chat"), origin=str(tmp_path)
    )

    def identity(seed: int, weights: str) -> str:
        settings: Any = SimpleNamespace(
            seed=seed,
            model=SimpleNamespace(weights=weights, dtype="float32"),
            trainer=SimpleNamespace(precision="32-true"),
            eval=SimpleNamespace(batch_size=1),
        )
        evaluation = Evaluation(settings, tmp_path, settings)
        return evaluation._subject(cast(Any, start), None, cast(Any, start.policy)).identity

    return identity


def test_runs_that_differ_in_the_seed_share_what_was_measured_on_their_start(
    identity_of: Any,
) -> None:
    assert identity_of(0, "pretrained") == identity_of(1, "pretrained")


def test_drawn_weights_are_another_model_for_each_seed(identity_of: Any) -> None:
    assert identity_of(0, "random") != identity_of(1, "random")
