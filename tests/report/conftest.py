"""A finished run for every test of the report."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "finished_run", Path(__file__).with_name("finished_run.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
finished_run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(finished_run)


@pytest.fixture(scope="session")
def make_finished_run() -> Callable[[Path, int], Path]:
    """Makes a finished run in a folder, for what several tests share."""
    return finished_run.make


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a finished run: `make_run("name", seed=1)`."""

    def make(name: str = "run", seed: int = 0) -> Path:
        return finished_run.make(tmp_path / name, seed)

    return make


@pytest.fixture
def nasty() -> str:
    """The text that tries to break a page."""
    return finished_run.NASTY
