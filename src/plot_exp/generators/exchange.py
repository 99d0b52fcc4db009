"""One POST to an OpenAI-compatible server, and what its failures mean."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

LARGEST_ANSWER = 64 << 20
PIECE = 1 << 16
# The request cannot become right by asking again: wrong key, wrong address, wrong model.
FATAL = (401, 403, 404, 405)
PASSING = (408, 409, 425, 429)
FILTERED = ("content_filter", "content_policy_violation", "responsibleaipolicyviolation")


@dataclass(eq=False)
class FailureError(Exception):
    """A request that brought no answer.

    Attributes:
        message: one clause for a person; never holds the key.
        passing: it may succeed when asked again.
        fatal: every other request would fail in the same way.
        wait: seconds that the server asks for before the next try.
        filtered: the server refused to answer this prompt for its content.
    """

    message: str
    passing: bool = False
    fatal: bool = False
    wait: float | None = None
    filtered: bool = False

    def __str__(self) -> str:
        return self.message


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(url: str, body: dict[str, Any], key: str | None, timeout: float) -> dict[str, Any]:
    """The server's JSON object.

    Args:
        key: sent as a bearer token; it is taken out of everything that comes back.
        timeout: seconds for the whole exchange.

    Raises:
        FailureError: there is no such object.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method="POST")
    until = time.monotonic() + timeout
    try:
        with _opener(url).open(request, timeout=timeout) as response:
            content = _read(response, until)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error, key, until) from None
    except (TimeoutError, OSError, http.client.HTTPException) as error:
        raise _unreached(error, timeout) from None
    try:
        found = json.loads(_redacted(content.decode("utf-8", "replace"), key))
    except (ValueError, RecursionError):
        raise FailureError("the answer is not whole JSON", passing=True) from None
    if not isinstance(found, dict):
        raise FailureError("the answer is no JSON object", passing=True)
    return found


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if _is_here(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(response: Any, until: float) -> bytes:
    """The body; a server that sends a byte now and then does not hold us beyond `until`."""
    pieces: list[bytes] = []
    size = 0
    while piece := response.read1(PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_ANSWER:
            raise FailureError(f"the answer is longer than {LARGEST_ANSWER >> 20} MiB")
        if time.monotonic() > until:
            raise TimeoutError
    return b"".join(pieces)


def _refused(error: urllib.error.HTTPError, key: str | None, until: float) -> FailureError:
    """What an HTTP status other than success means."""
    try:
        text = _redacted(_read(error, until).decode("utf-8", "replace"), key)
    except (OSError, http.client.HTTPException, FailureError):
        text = ""
    said, codes = _explanation(text)
    status = error.code
    message = f"HTTP {status}" + (f": {said}" if said else "")
    if 300 <= status < 400:
        return FailureError(f"{message} (it redirects; name the address itself)", fatal=True)
    if any(code in FILTERED for code in codes):
        return FailureError(message, filtered=True)
    if "insufficient_quota" in codes or status in FATAL:
        return FailureError(message, fatal=True)
    passing = status in PASSING or status >= 500
    return FailureError(message, passing=passing, wait=_asked_wait(error.headers))


def _explanation(text: str) -> tuple[str, list[str]]:
    """The server's own words in one short line, and the codes beside them."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    error = found.get("error", found) if isinstance(found, dict) else None
    codes: list[str] = []
    if isinstance(error, dict):
        inner = error.get("innererror")
        holders = [error, inner] if isinstance(inner, dict) else [error]
        codes = [str(holder.get(name)).lower() for holder in holders for name in ("code", "type")]
        text = str(error.get("message") or error.get("detail") or "")
    elif isinstance(error, str):
        text = error
    elif text.lstrip().startswith("<"):
        text = ""  # a page for a browser
    words = " ".join(text.split())
    return (words if len(words) <= 200 else f"{words[:200]} …"), codes


def _asked_wait(headers: Any) -> float | None:
    """Seconds from Retry-After, as a number or a date; None where there is none to read."""
    value = headers.get("Retry-After") if headers is not None else None
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _unreached(error: Exception, timeout: float) -> FailureError:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return FailureError(f"no answer within {timeout:g} s", passing=True)
    if isinstance(cause, ssl.SSLError):
        return FailureError(f"no secure connection ({cause.reason or cause})", fatal=True)
    if isinstance(cause, OSError) and cause.strerror:
        return FailureError(cause.strerror.lower(), passing=True)
    said = str(cause) if isinstance(cause, str) else type(cause).__name__
    return FailureError(f"the connection broke ({said})", passing=True)


def _redacted(text: str, key: str | None) -> str:
    return text.replace(key, "[key]") if key else text
