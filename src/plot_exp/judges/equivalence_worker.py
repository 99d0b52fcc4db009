"""Compares LaTeX expressions by math-verify: a program of its own, since it may have to be killed.

Reads one JSON pair [gold, candidate] a line and writes `true` or `false` a line. It imports nothing
of this package, so that it starts fast and from anywhere.
"""

from __future__ import annotations

import json
import sys
from typing import Any

MEMORY_BYTES = 4 << 30


def _limit_memory() -> None:
    """A number such as 9^9^9^9 shall not take the machine's memory before its time is up."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, OSError, ValueError):
        pass  # a system without such limits


def _equal(gold: str, candidate: str) -> bool:
    import math_verify

    def parse(text: str) -> list[Any]:
        found: list[Any] = math_verify.parse(
            f"$\\boxed{{{text}}}$", parsing_timeout=None, raise_on_error=False
        )
        return found

    return bool(
        math_verify.verify(
            parse(gold), parse(candidate), timeout_seconds=None, raise_on_error=False
        )
    )


def main() -> None:
    """Answers until its input ends; the first line says that it is ready."""
    import logging

    import math_verify  # noqa: F401

    logging.disable(logging.CRITICAL)
    _limit_memory()
    answers = sys.stdout
    sys.stdout = sys.stderr  # a library that prints must not answer for us
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        gold, candidate = json.loads(line)
        try:
            equal = _equal(gold, candidate)
        except (Exception, RecursionError):
            equal = False
        print("true" if equal else "false", file=answers, flush=True)


if __name__ == "__main__":
    main()
