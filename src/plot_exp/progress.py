"""Progress bars that behave on a terminal and stay quiet in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

T = TypeVar("T")
# Fewer items than this are soon done, and say so by the next line.
LONG_WAY = 50


class Bar(Protocol):
    """Wraps an iterable and shows how far it has come."""

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
        """Yields the items."""
        ...


def silent(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """A bar that shows nothing."""
    return items


def shown(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """A bar on a terminal; elsewhere a line at the start and at every tenth of a long way."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        yield from _lines(items, label, total)
        return
    yield from tqdm(items, desc=label, total=total, leave=False, dynamic_ncols=True)


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    if total is None and isinstance(items, Sized):
        total = len(items)
    print(f"{label} ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    every = max(1, (total or 0) // 10)
    for done, item in enumerate(items):
        seconds = time.monotonic() - started
        if total is not None and total >= LONG_WAY and done and done % every == 0:
            left = seconds / done * (total - done)
            print(
                f"{label}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True
            )
        yield item


def choose(progress: bool) -> Bar:
    """The bar for `trainer.progress`."""
    return shown if progress else silent


def quiet_libraries() -> None:
    """Leaves the terminal to this project's own bars and tables; errors still speak."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
