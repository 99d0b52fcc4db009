"""Files from elsewhere are read within limits: a size, a depth, no aliases, no code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plot_exp.errors import UserError
from plot_exp.files import reason

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """See `config.limits`, whose keys the messages name.

    Attributes:
        record: bytes of one line, record or cell; below it no compressed file is held suspect.
        document: bytes of a file that is read as a whole.
        expansion: how many times its own size a compressed file may grow.
    """

    record: int = 64 * MEGABYTE
    document: int = 1024 * MEGABYTE
    expansion: float = 200.0


class _Used:
    """What this process reads by; the command line sets it once, before anything is read."""

    limits = Limits()


def limits() -> Limits:
    """The limits in force."""
    return _Used.limits


def use_limits(wanted: Limits) -> None:
    """Puts limits in force for this process."""
    _Used.limits = wanted


def megabytes(size: int) -> str:
    """A size as the keys of `limits` have it."""
    return f"{size / MEGABYTE:g} MB"


def read_text(path: Path, of: str = "") -> str:
    """A whole text file in UTF-8.

    Args:
        of: what else the message says of the file, such as the key that named it.

    Raises:
        UserError: it cannot be read, is too large, or is no text.
    """
    named = f"{of}: {path}" if of else str(path)
    most = limits().document
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"{named} cannot be read: {why}.") from error
    if len(data) > most:
        raise UserError(
            f"{named} is larger than {megabytes(most)}; raise limits.document_mb if that is right."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is not valid UTF-8 (byte {error.start}).") from error


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        UserError: it is no JSON, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        raise UserError(
            f"{where} is not valid JSON: {error.msg} at {place}; is the file cut off?"
        ) from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply for JSON that is data.") from error
    except ValueError as error:
        raise UserError(f"{where} holds a number of too many digits ({error}).") from error


def read_json(path: Path, of: str = "") -> Any:
    """The value of a JSON file.

    Raises:
        UserError: see `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, of), f"{of}: {path}" if of else str(path))


class _PlainLoader(yaml.SafeLoader):
    """Plain data, and no aliases: a few lines of them can stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"an alias (*{event.anchor}); write the value out")
        return super().compose_node(parent, index)


def plain_yaml(text: str) -> Any:
    """The value of a YAML text that holds plain data without aliases.

    Raises:
        yaml.YAMLError: it is none.
    """
    try:
        # A subclass of SafeLoader: it makes no objects.
        return yaml.load(text, Loader=_PlainLoader)
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except ValueError as error:  # a number or a date that is none
        raise yaml.YAMLError(str(error)) from error


def parse_yaml(text: str, where: str) -> Any:
    """`plain_yaml` of a file that the user named.

    Raises:
        UserError: it holds no plain data.
    """
    try:
        return plain_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not a configuration: {error}") from error
