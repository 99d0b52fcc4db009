"""Keys, tokens and passwords stay out of everything that is written or shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

HIDDEN = "[hidden]"
SHORTEST = 8

# Variables of the environment whose value is a secret, by how their names end.
_SECRET_NAME = re.compile(
    r"(^|_)(API_?KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE"
    r"|CREDENTIALS?)$",
    re.IGNORECASE,
)
# What well-known services' keys look like: their prefixes are public so that they can be found.
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}"
    r"|wandb_v1_[A-Za-z0-9_]{20,})"
)
_HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@'\"]+@")
_NAMED = re.compile(
    r"(?i)\b((?:[\w-]*[_-])?(?:api[_-]?key|access[_-]?key|secret|passw(?:or)?d|passphrase)"
    r"|(?:hf|auth|access|api|bearer|refresh|id)[_-]?token|token)"
    r"(['\"]?\s*[=:]\s*['\"]?)(?=[^\s'\"&,;]{8})[^\s'\"&,;]+"
)

_remembered: set[str] = set()


def remember(secret: str | None) -> None:
    """Keeps a secret from being shown that comes from a variable of an ordinary name."""
    if secret and len(secret.strip()) >= SHORTEST:
        _remembered.add(secret.strip())


def redact(text: str) -> str:
    """The text with `[hidden]` in place of what is, or looks like, a secret."""
    for secret in sorted({*_of_environment(), *_remembered}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    text = _HEADER.sub(rf"\1 {HIDDEN}", text)
    text = _TOKEN.sub(HIDDEN, text)
    return _NAMED.sub(rf"\1\2{HIDDEN}", text)


def holds_secret(text: str) -> bool:
    """Whether `redact` finds something that was not hidden before."""
    return redact(text) != text


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if found := re.search(r"://([^/\s@]+)@", value):
            yield from (part for part in _userinfo(found[1]) if len(part) >= SHORTEST)
        value = value.strip()
        # A path names where a secret lies, and is none.
        if _SECRET_NAME.search(name) and len(value) >= SHORTEST and not value.startswith("/"):
            yield value


def _userinfo(text: str) -> Iterator[str]:
    """The whole, and the password alone, which a message may show without its user."""
    yield text
    _, _, password = text.partition(":")
    yield password
