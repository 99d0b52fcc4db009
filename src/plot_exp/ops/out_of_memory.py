"""Memory that ran out: recognised in an error, and given back."""

from __future__ import annotations

import gc

import torch

_CPU_WORDS = ("not enough memory", "can't allocate memory", "defaultcpuallocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _CPU_WORDS
    )


def release() -> None:
    """Gives back what nothing holds any more; to be called outside of the error's handler."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
