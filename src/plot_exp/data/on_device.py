"""Dataclasses whose tensors move together."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Self

import torch
from torch import Tensor


class OnDevice:
    """Dataclass whose tensors move together."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy with every tensor on `device`; itself where nothing has to move."""
        moved = {}
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if isinstance(value, Tensor | OnDevice):
                found = value.to(device, non_blocking=non_blocking)
                if found is not value:
                    moved[field.name] = found
        return replace(self, **moved) if moved else self  # type: ignore[type-var]  # as above
