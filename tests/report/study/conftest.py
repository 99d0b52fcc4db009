"""Runs in memory, as a study reads them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from plot_exp.report.contents import Contents


@pytest.fixture
def run_of() -> Callable[..., Contents]:
    """`run_of("dpo+plot", seed, {"plot": {"alpha": 0.1}}, metrics, ...)`: a finished run."""

    def make(
        loss: str,
        seed: int = 0,
        terms: Mapping[str, Mapping[str, Any]] | None = None,
        metrics: Mapping[str, float] | None = None,
        **further: Any,
    ) -> Contents:
        sections = {
            term: dict((terms or {}).get(term, {"weight": 1.0})) for term in loss.split("+")
        }
        config = {
            "seed": seed,
            "task": "train",
            "model": {"name": "tiny"},
            "dataset": {"name": "demo", **further.pop("dataset", {})},
            "loss": sections,
        }
        numbers = {"val/reward_accuracy": 0.5 + seed / 100, **(metrics or {})}
        return Contents(Path(f"{loss}-{seed}"), config, metrics=numbers, **further)

    return make
