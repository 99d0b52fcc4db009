"""Whether two LaTeX expressions say the same, within a time limit that holds.

math-verify stops itself by an alarm, which Python delivers only between two steps of its own: the
power 9^9^9^9 is one step. It therefore works in a process that is killed when its time is up.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

from plot_exp.errors import RunError

SECONDS = 5.0
START_SECONDS = 120.0
# No final answer is as long; comparing such a text would only take time.
LONGEST = 2000
WORKER = Path(__file__).with_name("equivalence_worker.py")


class Checker:
    """A worker process that compares expressions; started when first asked, killed when late."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __call__(self, gold: str, candidate: str, seconds: float = SECONDS) -> bool | None:
        """Whether the expressions are equal; None where `seconds` did not suffice.

        Raises:
            RunError: math-verify cannot be started.
        """
        if max(len(gold), len(candidate)) > LONGEST:
            return False
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            process.stdin.write(json.dumps([gold, candidate]).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, seconds)
            if line in (b"true", b"false"):
                return line == b"true"
            self._kill()
            return None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        # -P: the folder of the worker must not come before the libraries it imports.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        atexit.register(self._kill)
        if self._line(self._process, START_SECONDS) != b"ready":
            self._kill()
            raise RunError("math-verify could not be started; is the package installed?")
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line, or None where there is none in time."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        return process.stdout.readline().strip() if ready else None

    def _kill(self) -> None:
        if self._process is None:
            return
        atexit.unregister(self._kill)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


check = Checker()
