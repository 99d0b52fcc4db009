"""A checkpoint in parts cannot run code where it is read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as parts

from plot_exp.training.plain_parts import METADATA, PlainPlanner, require_plain

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed")


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


STATE = {"weight": torch.arange(4.0), "half": torch.ones(2, dtype=torch.bfloat16)}


def written(folder: Path, **values: Any) -> Path:
    parts.save({**STATE, **values}, checkpoint_id=folder)
    return folder


def read(folder: Path, **values: Any) -> dict[str, Any]:
    require_plain(folder)
    state = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()} | values
    parts.load(state, checkpoint_id=folder, planner=PlainPlanner())
    return state


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    found = read(written(tmp_path, lr=0.5, betas=(0.9, 0.99)), lr=0.0, betas=None)
    assert torch.equal(found["weight"], STATE["weight"])
    assert torch.equal(found["half"], STATE["half"])
    assert (found["lr"], found["betas"]) == (0.5, (0.9, 0.99))


def test_code_in_the_metadata_is_not_run(tmp_path: Path) -> None:
    folder, witness = written(tmp_path / "checkpoint"), tmp_path / "witness"
    (folder / METADATA).write_bytes(pickle.dumps(Hostile(witness)))
    with pytest.raises(pickle.UnpicklingError, match="mkdir is no description"):
        read(folder)
    assert not witness.exists()


def test_code_among_the_values_is_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    folder = written(tmp_path / "checkpoint", lr=Hostile(witness))
    with pytest.raises(parts.CheckpointException, match="mkdir"):
        read(folder, lr=0.0)
    assert not witness.exists()
