"""How many rows fit: begin from the memory there is, halve where it does not do."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from plot_exp.errors import RunError
from plot_exp.ops.out_of_memory import is_out_of_memory, release

# Of the memory that is free: allocators keep some, and estimates are estimates.
USED_SHARE = 0.6
# On a CPU a row more costs as much as the one before, and large batches leave the caches.
CPU_ROWS = 64


def fitting_rows(bytes_a_row: float, most: int, device: torch.device) -> int:
    """A first batch size: a power of two that should fit, at most `most`."""
    free = free_bytes(device)
    rows = most if free is None else min(most, int(USED_SHARE * free / max(bytes_a_row, 1.0)))
    if device.type == "cpu":
        rows = min(rows, CPU_ROWS)
    return most if rows >= most else 1 << max(0, rows.bit_length() - 1)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can be had on the device; None where nobody says."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def in_batches(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> tuple[Tensor, int]:
    """`function` over batches of rows, each half as large as before where memory runs out.

    Returns:
        The results, joined along the rows, and the batch size that did.

    Raises:
        RunError: a single row does not fit.
    """
    size = max(1, size)
    found: list[Tensor] = []
    start = 0
    while start < len(rows):
        batch = rows[start : start + size]
        try:
            found.append(function(batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        else:
            start += len(batch)
            failed = False
        # Outside of the handler, where the error no longer holds the tensors of its frames.
        if failed:
            if len(batch) == 1:
                raise RunError(
                    "the attacked model has no memory for a single candidate; shorten the "
                    "behaviours, load it in bfloat16 (model.dtype), or free memory"
                )
            size = max(1, min(size, len(batch)) // 2)
            release()
    return torch.cat(found), size
