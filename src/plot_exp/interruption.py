"""Signals that ask a run to end, so that it ends where it can be gone on with.

Anywhere but in training a signal raises `Interrupted` at once: files are written whole or not at
all, so nothing half-written stays. In training the step in hand is finished and a checkpoint
saved first. A second signal ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from plot_exp import slurm

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
# Schedulers and launchers each pass a signal on: what comes so soon is the same one again.
SAME_SIGNAL_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; like Ctrl-C it passes by those who handle errors.

    Attributes:
        signal: which one.
        note: what was done about it, to be appended to a sentence.
    """

    def __init__(self, number: signal.Signals, note: str = "") -> None:
        super().__init__(number.name)
        self.signal, self.note = number, note

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells count: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal


class SignalWatch:
    """What the process does with SIGINT, SIGTERM, SIGUSR1 and SIGUSR2.

    Args:
        requeue: under SLURM, put the job back into the queue.

    Attributes:
        received: the signal that came; None so far.
    """

    def __init__(self, *, requeue: bool) -> None:
        self.requeue = requeue
        self.received: signal.Signals | None = None
        self._at = 0.0
        self._deferring = False
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Takes over the signals that nobody has taken; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _signals():
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = before
                signal.signal(number, self._handle)

    def remove(self) -> None:
        """Gives the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def defer(self) -> None:
        """From here on a signal is only noted; takes back what a library has laid over ours."""
        for number in self._before:
            signal.signal(number, self._handle)
        self._deferring = True

    def release(self) -> None:
        """Ends `defer`; a signal that came last of all ends the run now."""
        deferred, self._deferring = self._deferring, False
        if deferred and self.received is not None:
            self.stop()

    def abandon(self) -> None:
        """Ends `defer` without a word, where something else ends the run already."""
        self._deferring = False

    def stop(self, number: signal.Signals | None = None, note: str = "") -> NoReturn:
        """Ends the run, which goes on later.

        Args:
            number: the signal, where another process received it.
            note: what was saved.

        Raises:
            Interrupted: always.
        """
        self._deferring = False
        number = self.received = number or self.received or signal.SIGTERM
        if self.requeue and number != signal.SIGINT and slurm.first_process():
            note += slurm.requeue()
        raise Interrupted(number, note)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is not None:
            if now - self._at >= SAME_SIGNAL_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received, self._at = signal.Signals(number), now
        if not self._deferring:
            self.stop()
        # `print` is not safe here: the signal may have come in the middle of one.
        os.write(
            2,
            f"{self.received.name}: the step in hand is finished and a checkpoint saved; "
            "a second signal ends at once\n".encode(),
        )


_active: SignalWatch | None = None


def active() -> SignalWatch | None:
    """The watch over the run at hand, if there is one."""
    return _active


@contextmanager
def watching(*, requeue: bool) -> Iterator[SignalWatch]:
    """Watches over one run; a run inside of another one is left to the outer watch."""
    global _active
    if _active is not None:
        yield _active
        return
    _active = SignalWatch(requeue=requeue)
    _active.install()
    try:
        yield _active
    finally:
        _active.remove()
        _active = None


def _signals() -> list[signal.Signals]:
    """Those of `NAMES` that the system has."""
    return [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]
