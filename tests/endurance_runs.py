"""Small training runs in fp64 that can be disturbed in any step, for tests of long runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from plot_exp.config.schema import OptimizerConfig, TrainerConfig
from plot_exp.data.collate import collate_padded
from plot_exp.data.loader import StepLoader
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.module import PreferenceModule
from plot_exp.training.retention import Checkpoints
from plot_exp.workflows.engine import build_trainer, interruptible, last_checkpoint

from coupling_runs import composite, examples
from scoring_models import tiny_model

DATA = examples(12)


class Run:
    """A run of a few steps; `fit` trains, or goes on from the newest checkpoint of its folder.

    Args:
        disturb: called with the run and the number of the step before each pass of the policy.
        validations: what the validation after each step gives; empty validates never.
    """

    def __init__(
        self,
        folder: Path,
        *,
        loss: str = "dpo+plot",
        steps: int = 6,
        disturb: Callable[[Run, int], None] | None = None,
        validations: Mapping[int, Mapping[str, float]] | None = None,
        callbacks: Any = (),
        **trainer: Any,
    ) -> None:
        self.folder = folder
        keys = {"log_every": 1, "log_term_gradients": False, "checkpoint_every": 100} | trainer
        if validations:
            keys["validate_every"] = 1
        settings = TrainerConfig(max_steps=steps, batch_size=4, microbatch_size=2, **keys)
        self.policy = Policy(tiny_model("qwen2").double(), settings.head_chunk)
        self.composite = composite(loss)
        self.logged: dict[int, dict[str, float]] = {}
        self.loader = StepLoader(
            DATA,
            batch_size=4,
            microbatch_size=2,
            epochs=1,
            max_steps=steps,
            seed=0,
            pad_id=0,
            first_step=lambda: self.module.completed_steps,
        )

        def validate(step: int) -> Mapping[str, float]:
            found = (validations or {}).get(step, {})
            self.checkpoints.offer(step, found)
            return found

        self.module = PreferenceModule(
            self.policy,
            frozen_copy(self.policy),
            self.composite,
            trainer_config=settings,
            optimizer_config=OptimizerConfig(lr=1e-2, schedule="constant", weight_decay=0.1),
            steps=steps,
            seed=0,
            log=lambda metrics, step: self.logged.setdefault(step, {}).update(metrics),
            validate=validate if validations else None,
            collate=lambda items: collate_padded(items, 0),
        )
        self.trainer = build_trainer(settings, folder, steps, list(callbacks))
        found = self.trainer.checkpoint_callback
        assert isinstance(found, Checkpoints)
        self.checkpoints = found
        if disturb is not None:
            self._disturb(disturb)

    def _disturb(self, disturb: Callable[[Run, int], None]) -> None:
        plain = self.policy.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            disturb(self, self.module.completed_steps + 1)
            return plain(*args, **kwargs)

        self.policy.forward = forward  # type: ignore[method-assign]

    def fit(self) -> Run:
        """Trains to the end."""
        checkpoint = last_checkpoint(self.folder)
        self.policy.train()
        with interruptible():
            self.trainer.fit(
                self.module,
                self.loader,
                ckpt_path=str(checkpoint) if checkpoint else None,
                weights_only=True,
            )
        return self

    def saved(self) -> list[int]:
        """The steps of which there are checkpoints; a half-written file is none of the kind."""
        files = sorted(path.name for path in (self.folder / "checkpoints").iterdir())
        assert all(name.startswith("step-") and name.endswith(".ckpt") for name in files), files
        return sorted(int(name[5:-5]) for name in files)

    def losses(self) -> dict[int, float]:
        """The logged loss of each step."""
        return {step: row["train/loss"] for step, row in self.logged.items() if "train/loss" in row}


def assert_same_weights(one: Run, other: Run, tolerance: float = 0.0) -> None:
    """Bit for bit without a tolerance."""
    pairs = zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    for left, right in pairs:
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)
