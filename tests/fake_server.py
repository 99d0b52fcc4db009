"""An HTTP server on this machine that answers as a test tells it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def chat(text: Any, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A whole answer of `chat/completions`."""
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **more}]}


@dataclass
class Reply:
    """One answer of the server.

    Attributes:
        content: text as it is, or an object as JSON.
        promised: bytes that Content-Length speaks of beyond those that come.
        delay: seconds before the first byte.
        drip: seconds between single bytes.
    """

    content: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    promised: int = 0
    delay: float = 0.0
    drip: float = 0.0


@dataclass
class Seen:
    """What the server was asked."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclass
class FakeServer:
    """Address and what came in."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serving(answer: Callable[[Seen, int], Reply | dict[str, Any]]) -> Iterator[FakeServer]:
    """A server that answers with `answer(what was asked, how many came before it)`."""
    lock = threading.Lock()
    state = {"now": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen = Seen(self.path, body, dict(self.headers), time.monotonic())
            with lock:
                number = len(server.seen)
                server.seen.append(seen)
                state["now"] += 1
                server.most_at_once = max(server.most_at_once, state["now"])
            try:
                reply = answer(seen, number)
                self._send(reply if isinstance(reply, Reply) else Reply(reply))
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with lock:
                    state["now"] -= 1

        def _send(self, reply: Reply) -> None:
            text = reply.content if isinstance(reply.content, str) else json.dumps(reply.content)
            data = text.encode()
            time.sleep(reply.delay)
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(data) + reply.promised))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for place in range(0, len(data), 1 if reply.drip else len(data) or 1):
                time.sleep(reply.drip)
                self.wfile.write(data[place : place + 1] if reply.drip else data)
                self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = FakeServer(f"http://127.0.0.1:{httpd.server_port}/v1")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
