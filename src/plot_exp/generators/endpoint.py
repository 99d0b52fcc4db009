"""A model behind an OpenAI-compatible server: asked by many at once, each answer kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.errors import RunError, UserError
from plot_exp.files import write_json
from plot_exp.generators.base import Completion, Each, Prompt, Sampling, check_samples
from plot_exp.generators.exchange import FailureError, post
from plot_exp.generators.interface import completion, question
from plot_exp.progress import Bar, silent
from plot_exp.redaction import remember

GREEDY = Sampling()
FIRST_WAIT = 1.0


@dataclass(frozen=True)
class _Request:
    """One completion to ask for; `place` counts all that were asked for together."""

    place: int
    path: str
    body: dict[str, Any]
    sampling: Sampling
    sample: int


@dataclass
class EndpointGenerator:
    """Asks a server for completions.

    Every answer is kept in `cache_dir` under a hash of its request and taken from there the next
    time, so that an interrupted evaluation asks only for what is missing, and a repeated one for
    nothing. The key comes from the environment; it is neither written nor shown.

    Attributes:
        settings: where the server is and how it is asked.
        cache_dir: None keeps nothing.
        requests: how many went out, further tries included.

    Raises:
        UserError: the settings name no server or no model.
    """

    settings: EndpointConfig
    cache_dir: Path | None = None
    key_name: str = "endpoint"
    requests: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name in ("url", "model"):
            if getattr(self.settings, name) is None:
                raise UserError(f"{self.key_name}.{name} is needed to ask a model at an endpoint")
        self._key = (os.environ.get(self.settings.key_variable) or "").strip() or None
        remember(self._key)
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise UserError(
                f"the key in {self.settings.key_variable} holds characters that no header can carry"
            )
        self._random = random.Random()
        self._counting = threading.Lock()

    @property
    def name(self) -> str:
        """The model's name at the server."""
        return str(self.settings.model)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling = GREEDY,
        *,
        samples: int = 1,
        bar: Bar = silent,
        label: str = "asking the endpoint",
        each: Each | None = None,
    ) -> list[list[Completion]]:
        """See `Generator`."""
        check_samples(sampling, samples)
        requests = [
            _Request(
                place * samples + sample,
                *question(self.name, prompt, sampling, sample, self.settings.limit_key),
                sampling,
                sample,
            )
            for place, prompt in enumerate(prompts)
            for sample in range(samples)
        ]
        found: list[dict[int, Completion]] = [{} for _ in prompts]
        failures: list[FailureError] = []
        with _Workers(self._complete, requests, self.settings.concurrency) as done:
            for place, outcome in bar(done, label, len(requests)):
                if isinstance(outcome, Completion):
                    row = found[place // samples]
                    row[place % samples] = outcome
                    if each is not None and len(row) == samples:
                        each(place // samples, [row[sample] for sample in range(samples)])
                else:
                    failures.append(outcome)
                    self._give_up_early(failures, sum(map(len, found)))
        if failures:
            raise self._failed(failures, len(requests))
        return [[row[sample] for sample in range(samples)] for row in found]

    def _complete(self, request: _Request, stopped: threading.Event) -> Completion:
        """From the cache, or from the server with further tries.

        Raises:
            FailureError: there is no answer, and no reason to try again.
        """
        path = self._cached_at(request)
        if (known := self._cached(path, request)) is not None:
            return known
        for attempt in range(self.settings.retries + 1):
            try:
                return self._ask(request, path)
            except FailureError as failure:
                if failure.filtered:
                    return Completion("", "filtered")
                if not failure.passing or attempt == self.settings.retries:
                    raise
                waited = stopped.wait(self._wait(attempt, failure))
                if waited:
                    raise
        raise AssertionError("every try returns or raises")

    def _ask(self, request: _Request, path: Path | None) -> Completion:
        with self._counting:
            self.requests += 1
        url = f"{self.settings.url}/{request.path}"
        answer = post(url, request.body, self._key, self.settings.timeout)
        found = completion(answer, request.sampling)
        if path is not None:
            write_json(path, {"request": request.body, "answer": answer})
        return found

    def _wait(self, attempt: int, failure: FailureError) -> float:
        """Twice as long each time, somewhat at random, and at least what the server asks for."""
        wait = FIRST_WAIT * 2**attempt * self._random.uniform(0.5, 1.0)
        return min(max(wait, failure.wait or 0.0), self.settings.longest_wait)

    def _cached_at(self, request: _Request) -> Path | None:
        if self.cache_dir is None:
            return None
        named = [self.settings.url, request.path, request.body, request.sample]
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
        return self.cache_dir / digest[:2] / f"{digest}.json"

    @staticmethod
    def _cached(path: Path | None, request: _Request) -> Completion | None:
        """The answer kept on disk; a damaged one counts as none."""
        if path is None or not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return completion(content["answer"], request.sampling)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FailureError):
            return None

    def _give_up_early(self, failures: Sequence[FailureError], answered: int) -> None:
        """Ends where the rest would fail too: a fatal failure, or many without an answer."""
        if failures[-1].fatal:
            raise UserError(f"{self._where}: {failures[-1]}")
        if not answered and len(failures) >= self.settings.concurrency:
            raise self._failed(failures, None)

    def _failed(self, failures: Sequence[FailureError], asked: int | None) -> RunError:
        count = f"{len(failures)} of {asked} requests" if asked else f"{len(failures)} requests"
        kept = (
            ""
            if self.cache_dir is None
            else ("; what was answered is kept, and the same command again asks for the rest")
        )
        return RunError(f"{self._where}: {count} failed, the last with: {failures[-1]}{kept}")

    @property
    def _where(self) -> str:
        return f"{self.name} at {self.settings.url}"


class _Workers:
    """Threads that complete requests; iterating gives (place, completion or failure).

    They are daemons: an interruption does not wait for what is under way.
    """

    def __init__(self, complete: Any, requests: Sequence[_Request], count: int) -> None:
        self._complete, self._total = complete, len(requests)
        self._stopped = threading.Event()
        self._todo: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        for request in requests:
            self._todo.put(request)
        self._threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(min(count, len(requests)))
        ]

    def __enter__(self) -> Iterator[tuple[int, Completion | FailureError]]:
        for thread in self._threads:
            thread.start()
        return self._outcomes()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _outcomes(self) -> Iterator[tuple[int, Completion | FailureError]]:
        for _ in range(self._total):
            place, outcome = self._done.get()
            if isinstance(outcome, Exception) and not isinstance(outcome, FailureError):
                raise outcome
            yield place, outcome

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                request = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put((request.place, self._complete(request, self._stopped)))
            except Exception as error:
                self._done.put((request.place, error))
