"""The other processes of a run on one machine, started by its first one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import plot_exp
from plot_exp.config.schema import Config
from plot_exp.processes.ranks import Ranks

SECONDS_TO_END = 5.0
# A process whose first one is gone has nothing to say, nor has the C++ beneath it, by whose account
# a lost connection is a page of addresses.
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}


class Children:
    """Runs the same workflow with the same settings in every process but this one.

    They are told the settings and the run's folder through a pipe, so neither the command line
    nor the clock is read twice.
    """

    def __init__(self, config: Config, run_dir: Path, ranks: Ranks) -> None:
        facts = {"config": config.plain(), "run_dir": str(run_dir), "parent": os.getpid()}
        told = json.dumps(facts).encode()
        source = str(Path(plot_exp.__file__).parents[1])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.started: list[subprocess.Popen[bytes]] = []
        for place in range(1, ranks.size):
            own = replace(ranks, rank=place, local_rank=place)
            process = subprocess.Popen(
                [sys.executable, "-m", "plot_exp.processes.worker"],
                stdin=subprocess.PIPE,
                env={
                    **QUIET,
                    **os.environ,
                    **own.variables(),
                    "PYTHONPATH": os.pathsep.join(paths),
                },
            )
            self.started.append(process)
            assert process.stdin is not None
            try:
                process.stdin.write(told)
                process.stdin.close()
            except BrokenPipeError:
                continue  # it has ended already, which `dead` will say

    def dead(self) -> tuple[int, str] | None:
        """The first process that ended otherwise than well: its rank, and how it ended."""
        for rank, process in enumerate(self.started, 1):
            code = process.poll()
            if code is not None and code != 0:
                return rank, _how(code)
        return None

    def end(self) -> None:
        """Waits a moment for all of them, and then ends those that are left."""
        self._wait(self.started)
        for how in (signal.SIGTERM, signal.SIGKILL):
            left = [process for process in self.started if process.poll() is None]
            for process in left:
                process.send_signal(how)
            self._wait(left)

    @staticmethod
    def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                return


def _how(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", as happens when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"
