"""Between log steps nothing waits for the device: no number is read, no size depends on one.

transformers' own making of masks is left out: it reads whether a batch has padding.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.data import DataLoader

from plot_exp.config.schema import OptimizerConfig, TrainerConfig
from plot_exp.data.collate import collate_padded
from plot_exp.losses.base import Totals
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.module import PreferenceModule
from plot_exp.workflows.engine import build_trainer

from coupling_runs import composite, examples
from scoring_models import tiny_model

# What makes the host wait for a GPU: a number that is read, and sizes that the data decide.
READS = ("_local_scalar_dense", "is_nonzero", "equal")
SIZES = ("nonzero", "masked_select", "_unique2", "unique_dim", "bincount")
BY_MASK = ("index", "index_put", "index_put_", "_index_put_impl_")


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masks = name in BY_MASK and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if (name in (*READS, *SIZES) or masks) and not _within_transformers_masks():
            self.found[f"{name} by mask" if masks else name] += 1
        return func(*args, **(kwargs or {}))


def _within_transformers_masks() -> bool:
    return any("masking_utils" in frame.filename for frame in traceback.extract_stack())


class Watched(PreferenceModule):
    """Counts the waits of every step."""

    def training_step(self, microbatches: Any, batch_idx: int) -> None:
        self.by_step = getattr(self, "by_step", {})
        with Waits() as waits:
            super().training_step(microbatches, batch_idx)
        self.by_step[self.completed_steps] = waits.found


def waits_of(loss: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **trainer: Any) -> Any:
    """What each of six steps waited for; the first and the last are log steps."""
    count = Totals.of

    def on_the_cpu(parts: Any) -> Totals:
        with _disable_current_modes():
            return count(parts)

    # Counts are taken before the batch goes to the device.
    monkeypatch.setattr("plot_exp.module.Totals.of", on_the_cpu)
    policy = Policy(tiny_model("qwen2"))
    settings = TrainerConfig(max_steps=6, log_every=100, checkpoint_every=100, **trainer)
    module = Watched(
        policy,
        frozen_copy(policy),
        composite(loss),
        trainer_config=settings,
        optimizer_config=OptimizerConfig(),
        steps=6,
        seed=0,
        log=lambda *_: None,
    )
    batches = [[collate_padded(examples(6)[at : at + 3], 0) for at in (0, 3)] for _ in range(6)]
    build_trainer(settings, folder, 6, []).fit(module, DataLoader(batches, batch_size=None))
    return module.by_step


# PRO's rankings have lengths of their own, so that its sizes depend on the data.
@pytest.mark.parametrize("coupling", ["exact", "carried"])
@pytest.mark.parametrize("loss", ["sft", "dpo", "aot", "pro", "dpo+plot"])
def test_nothing_is_read_between_log_steps(
    loss: str, coupling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_step = waits_of(loss, tmp_path, monkeypatch, coupling=coupling)

    assert by_step[1]["_local_scalar_dense"] > 0
    for step in (2, 3, 4, 5):
        found = by_step[step]
        assert not any(found[name] for name in READS), found
        assert loss == "pro" or not found, found
