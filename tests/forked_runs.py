"""Whole commands in processes of their own that need not import everything anew.

Each is forked from a server which has imported the heavy libraries once.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "lightning.pytorch", "transformers", "matplotlib.pyplot", "plot_exp.workflows.train"]
)
QUICK = [
    "experiment=quick",
    "logger=csv",
    "eval=none",
    "trainer.checkpoint_every=3",
    "trainer.progress=false",
]


def _run(
    arguments: Sequence[str],
    folder: Path,
    output: Path,
    variables: Mapping[str, str],
    file_bytes: int | None,
) -> None:
    os.chdir(folder)
    os.environ.update({"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", **variables})
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    from plot_exp.__main__ import main

    code = main(list(arguments))
    sys.stdout.flush()
    sys.exit(code)


class Command:
    """`python -m plot_exp` with these arguments, begun in a folder.

    Args:
        file_bytes: no file can grow larger.
        variables: of the environment.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        file_bytes: int | None = None,
        **variables: str,
    ) -> None:
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        self.process = CONTEXT.Process(
            target=_run, args=(arguments, folder, self._output, variables, file_bytes)
        )
        self.process.start()

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    def said(self, words: str) -> bool:
        """Whether these words stand in what it has said so far."""
        return words in self.output

    def send(self, number: int) -> None:
        """Sends it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = 120.0) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(self.output)
        return self.process.exitcode

    def wait_until(self, ready: Callable[[], bool], timeout: float = 120.0) -> None:
        """Returns as soon as `ready` holds, while it is running."""
        deadline = time.monotonic() + timeout
        while not ready():
            assert self.process.is_alive(), self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.005)
