"""Checkpoints are whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plot_exp.errors import RunError
from plot_exp.workflows.engine import WholeCheckpointIO, last_checkpoint


def test_a_checkpoint_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "step-3.ckpt"
    WholeCheckpointIO().save_checkpoint({"weights": torch.ones(3)}, str(path))
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.ones(3))
    assert last_checkpoint(tmp_path) == path
    assert [file.name for file in path.parent.iterdir()] == ["step-3.ckpt"]


def test_a_full_disk_leaves_the_earlier_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints" / "step-3.ckpt"
    WholeCheckpointIO().save_checkpoint({"weights": torch.ones(3)}, path)

    def run_out(checkpoint: Any, file: Any) -> None:
        file.write(b"half of it")
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", run_out)
    with pytest.raises(RunError, match="No space left on device"):
        WholeCheckpointIO().save_checkpoint({}, path.with_name("step-6.ckpt"))
    assert [file.name for file in path.parent.iterdir()] == ["step-3.ckpt"]
    assert last_checkpoint(tmp_path) == path
