"""The settings of a model behind an OpenAI-compatible interface."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from plot_exp.config.base import Section


class EndpointConfig(Section):
    """A model behind an OpenAI-compatible interface: hosted, or a server on this machine.

    Attributes:
        url: up to and with the version, such as `http://localhost:8000/v1`; null for none.
        model: its name there.
        key_variable: the variable of the environment that holds the key; without one no key is
            sent. The key itself is never written anywhere.
        concurrency: requests under way at once.
        retries: further tries after a failure that may pass.
        timeout: seconds that one request may take.
        longest_wait: seconds between two tries at most, whatever the server asks for.
        limit_key: what the server calls the limit of new tokens.
    """

    url: str | None = None
    model: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = Field(8, ge=1)
    retries: int = Field(6, ge=0)
    timeout: float = Field(120.0, gt=0)
    longest_wait: float = Field(60.0, gt=0)
    limit_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("must be the name of a variable of the environment, not a key itself")
        return value

    @field_validator("url")
    @classmethod
    def _url_holds_no_secret(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("must begin with http:// or https:// and name a server")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("must hold no key and no question mark; a key comes from key_variable")
        return value.rstrip("/")
