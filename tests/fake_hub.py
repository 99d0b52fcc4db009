"""A hub on this machine: enough of its interface for the real client to push a folder."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeHub:
    """What it knows, and what it was asked.

    Attributes:
        token: the only one that it takes.
        repositories: whether each is private.
        status: what it answers to a path that holds the key.
    """

    token: str
    url: str = ""
    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        for part, status in self.status.items():
            if part in path:
                return status, {"error": f"no, {self.token}"}
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "ann", "orgs": [], "auth": {}}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
            if name in self.repositories:
                return 409, {"error": "there", "url": f"{self.url}/{name}"}
            private = asked.get("private", asked.get("visibility") == "private")
            self.repositories[name] = bool(private)
            return 200, {"url": f"{self.url}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = [file["path"] for file in json.loads(body)["files"]]
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": one, **plain} for one in files]}
        if "/commit/" in path:
            for line in body.decode().splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            name = "/".join(path.split("/")[3:5])
            url = f"{self.url}/{name}/commit/{'0' * 40}"
            return 200, {"commitUrl": url, "commitOid": "0" * 40}
        if method == "GET" and path.startswith("/api/models/"):
            name = "/".join(path.split("/")[3:5])
            if name not in self.repositories:
                return 404, {"error": "Repository not found"}
            sha = {"id": name, "private": self.repositories[name], "sha": "0" * 40}
            return 200, {**sha, "siblings": [], "tags": [], "downloads": 0, "likes": 0}
        return 404, {"error": f"{method} {path} is not known here"}


@contextmanager
def serving_hub(token: str) -> Iterator[FakeHub]:
    """The hub, for as long as the block runs."""
    hub = FakeHub(token)

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            hub.asked.append(f"{self.command} {path}")
            known = self.headers.get("Authorization") == f"Bearer {hub.token}"
            found = hub.answer(self.command, path, body) if known else (401, {"error": "who?"})
            data = json.dumps(found[1]).encode()
            self.send_response(found[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_HEAD = _handle  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
