"""The processes of a run, from their meeting to their end.

They meet at a store of keys and values that the first one keeps (or torchrun's agent does). There
they wait for one another without a time limit, hand over short facts, and say why they failed:
each has a thread that looks there, so that none waits for a process that is no more.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from plot_exp.errors import RunError
from plot_exp.processes.children import Children
from plot_exp.processes.ranks import Ranks

T = TypeVar("T")
LOOK_EVERY = 0.2
# How long a process that has heard of a failure may take to end by itself.
GRACE = 20.0
# How long a failure of one's own waits to hear whether another one came first.
HEARING = 3.0


class EndedError(RunError):
    """Another process failed; the first one says how."""


@dataclass(frozen=True)
class Failure:
    """Why a run ended.

    Attributes:
        rank: the process that failed.
        message: for a person.
        lost: the process was ended from outside, or its machine was.
    """

    rank: int
    exit_code: int
    message: str
    lost: bool = False


class Session:
    """One process alone; `Joined` is the same for several.

    Attributes:
        ranks: which process this is.
    """

    ranks = Ranks()

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.ranks.rank == 0

    def first(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, by the first process before the others, who find its files.

        Args:
            name: tells this occasion from others.

        Raises:
            EndedError: another process failed meanwhile.
        """
        return make()

    def in_turn(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, by one process of a machine after the other, the run's first foremost.

        Nothing in `make` may wait for another process.

        Args:
            name: tells this occasion from others.

        Raises:
            EndedError: another process failed meanwhile.
        """
        return make()

    def share(self, name: str, value: T) -> T:
        """The first process's value, which is plain data, for all of them."""
        return value


class Joined(Session):
    """One of several processes.

    Args:
        store, watched: two connections to the store: one waits, the other looks.
        children: the processes that this one started, if it did.
        alarm: called in a thread where the process has to end and cannot by itself.
    """

    def __init__(
        self,
        ranks: Ranks,
        store: Any,
        watched: Any,
        children: Children | None,
        alarm: Callable[[Failure], None],
    ) -> None:
        self.ranks = ranks
        self._store, self._watched = store, watched
        self._children, self._alarm = children, alarm
        self._over = threading.Event()
        self.failure: Failure | None = None
        self._watcher = threading.Thread(target=self._watch, name="processes", daemon=True)
        self._watcher.start()

    def first(self, name: str, make: Callable[[], T]) -> T:
        """See `Session`."""
        if self.leads:
            found = make()
            self._store.set(f"made/{name}", "yes")
            return found
        self._wait(f"made/{name}")
        return make()

    def in_turn(self, name: str, make: Callable[[], T]) -> T:
        """See `Session`."""
        rank = self.ranks.rank
        if not self.leads:
            self._wait(f"turn/{name}/{rank - 1 if self.ranks.local_rank else 0}")
        found = make()
        self._store.set(f"turn/{name}/{rank}", "yes")
        return found

    def share(self, name: str, value: T) -> T:
        """See `Session`."""
        if self.leads:
            self._store.set(f"shared/{name}", json.dumps(value))
            return value
        self._wait(f"shared/{name}")
        found: T = json.loads(self._store.get(f"shared/{name}"))
        return found

    def meet(self) -> None:
        """Waits until every process is there."""
        self._store.set(f"here/{self.ranks.rank}", "yes")
        for rank in range(self.ranks.size):
            self._wait(f"here/{rank}")

    def fail(self, failure: Failure) -> Failure:
        """Tells the others of this process's failure; gives the one that came first."""
        with suppress(Exception):
            told = self._store.compare_set("failure", "", json.dumps(asdict(failure)))
            return Failure(**json.loads(told))
        return failure

    def cause(self) -> Failure | None:
        """Another process's failure, if one is heard of in a moment."""
        deadline = time.monotonic() + HEARING
        while self.failure is None and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
        return self.failure

    def close(self) -> None:
        """Ends the looking, and the processes that this one started."""
        self._over.set()
        self._watcher.join()
        if self._children is not None:
            self._children.end()

    def _wait(self, key: str) -> None:
        while True:
            if self.failure is not None:
                raise EndedError(self.failure.message)
            try:
                if self._store.check([key]):
                    return
            except RuntimeError as error:
                raise EndedError("the run's first process is gone") from error
            time.sleep(LOOK_EVERY / 4)

    def _watch(self) -> None:
        """Looks for failures, and sees to it that this process ends after one."""
        while self.failure is None:
            if self._over.wait(LOOK_EVERY):
                return
            self.failure = self._heard()
        if not self._over.wait(GRACE):
            self._alarm(self.failure)

    def _heard(self) -> Failure | None:
        try:
            if self._watched.check(["failure"]):
                found = Failure(**json.loads(self._watched.get("failure")))
                return None if found.rank == self.ranks.rank else found
        except RuntimeError:
            return Failure(0, RunError.exit_code, "the run's first process is gone", lost=True)
        dead = None if self._children is None else self._children.dead()
        if dead is None:
            return None
        rank, how = dead
        # One that ended by itself has said why before, or will not.
        message = f"process {rank} of {self.ranks.size} {how}"
        return self.fail(Failure(rank, RunError.exit_code, message, lost=True))


_ALONE = Session()
_current: list[Session] = []


def current() -> Session:
    """The session of the run that this process is in."""
    return _current[-1] if _current else _ALONE


@contextmanager
def entered(session: Session) -> Iterator[None]:
    """Makes it the current one."""
    _current.append(session)
    try:
        yield
    finally:
        _current.remove(session)


def connect(ranks: Ranks, timeout: timedelta) -> tuple[Ranks, Any, Callable[[], Any]]:
    """The store, kept here or elsewhere.

    Returns:
        The ranks with the store's port, the store, and what makes one more connection to it.
    """
    from torch.distributed import PrefixStore, TCPStore

    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    keeps = ranks.rank == 0 and not agent
    # torchrun starts the processes again at the same store.
    prefix = f"plot_exp/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"

    def made(port: int, keeper: bool) -> Any:
        return TCPStore(
            ranks.address, port, is_master=keeper, timeout=timeout, wait_for_workers=False
        )

    store = made(ranks.port, keeps)
    port = store.port
    found = replace(ranks, port=port)
    return found, PrefixStore(prefix, store), lambda: PrefixStore(prefix, made(port, False))
