"""Progress bars that behave on a terminal and stay quiet in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Bar(Protocol):
    """Wraps an iterable and shows how far it has come."""

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
        """Yields the items."""
        ...


def silent(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """A bar that shows nothing."""
    return items


def shown(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """A bar on a terminal; one line at the start elsewhere."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        print(f"{label} ...", file=sys.stderr, flush=True)
        yield from items
        return
    yield from tqdm(items, desc=label, total=total, leave=False, dynamic_ncols=True)


def choose(progress: bool) -> Bar:
    """The bar for `trainer.progress`."""
    return shown if progress else silent


def quiet_libraries() -> None:
    """Leaves the terminal to this project's own bars and tables; errors still speak."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
