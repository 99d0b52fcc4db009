"""Checkpoints in parts are read as plain data: torch's own reader would unpickle anything.

What lies in which part stands in a pickle, `.metadata`, and single values are pickled among the
tensors. Both are gone through first with nothing allowed but tensors, numbers, text and torch's own
descriptions of them.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner
from torch.distributed.checkpoint.planner import ReadItem

METADATA = ".metadata"
LARGEST_METADATA = 2**30
# The names of `.metadata` beside dtypes; other modules of torch hold functions that do things.
DESCRIPTIONS = {
    "torch.distributed.checkpoint.metadata": None,
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "PosixFlavour", "WindowsPath"},
    "collections": {"OrderedDict"},
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = DESCRIPTIONS.get(module, set())
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if "." in name or not (dtype or known is None or name in known):
            raise pickle.UnpicklingError(f"{module}.{name} is no description of a tensor")
        return super().find_class(module, name)


def require_plain(checkpoint: Path) -> None:
    """Looks through what a checkpoint in parts says of itself, before torch reads it.

    Raises:
        pickle.UnpicklingError: it names something else than descriptions of tensors.
        OSError: it cannot be read, or is larger than any such file.
    """
    path = checkpoint / METADATA
    with path.open("rb") as file:
        data = file.read(LARGEST_METADATA + 1)
    if len(data) > LARGEST_METADATA:
        raise OSError(f"{path} is larger than {LARGEST_METADATA >> 20} MB")
    _Plain(io.BytesIO(data)).load()


class PlainPlanner(DefaultLoadPlanner):
    """Takes single values that are plain data alone."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Reads a value as data before torch reads it in its own way.

        Raises:
            pickle.UnpicklingError: it is none.
        """
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)
