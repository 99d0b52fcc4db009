"""What the schema finds wrong, in words that name the key, the value and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from plot_exp.config.nearest import nearest
from plot_exp.errors import UserError
from plot_exp.redaction import redact

Model = TypeVar("Model", bound=BaseModel)

BOUNDS = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list, such as [a,b]",
    "tuple": "a list, such as [a,b]",
}
# What the path of an error has where a value may be of several kinds: no key of ours.
ALTERNATIVE = re.compile(r"\[|^constrained-|^(int|float|bool|str)$")
SECTIONS = ("dict_type", "model_type", "model_attributes_type")


def validated(model: type[Model], content: Any, source: str | None = None) -> Model:
    """`content` as a `model`.

    Args:
        source: the file that `content` was read from, to be named in the message.

    Raises:
        UserError: one line for each thing that is wrong.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [describe(details, path, model) for path, details in _errors(error, ())]
        prefix = f"{source}: " if source else ""
        raise UserError("\n".join(prefix + line for line in _alternatives(lines))) from error


def _alternatives(lines: list[str]) -> list[str]:
    """One sentence for a value that may be of several kinds."""
    expected: dict[str, dict[str, None]] = {}
    for line in lines:
        said, _, must = line.partition(": must be ")
        expected.setdefault(said, {})[must] = None
    return [
        said + ": must be " * any(musts) + " or ".join(filter(None, musts))
        for said, musts in expected.items()
    ]


def _errors(
    error: ValidationError, prefix: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], ErrorDetails]]:
    """Every single error with its path, those of a nested validation included."""
    for details in error.errors():
        path = (*prefix, *details["loc"])
        inner = details.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            yield from _errors(inner, path)
        else:
            yield path, details


def describe(details: ErrorDetails, path: tuple[Any, ...], model: type[BaseModel]) -> str:
    """One sentence for one error."""
    key = ".".join(str(part) for part in path if not ALTERNATIVE.search(str(part)))
    value, kind, context = details["input"], details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        from plot_exp.config.keys import unknown_key

        return unknown_key(key, model)
    if kind == "missing":
        return f"{key} is missing"
    if kind in SECTIONS:
        return f"{key}={shown(value)}: this is a section; set one of its keys, {key}.KEY=VALUE"
    return f"{key}={shown(value)}: {_expectation(kind, context, value, details['msg'])}"


def _expectation(kind: str, context: dict[str, Any], value: object, message: str) -> str:
    if kind in BOUNDS:
        return f"must be {BOUNDS[kind].format(**context)}"
    if kind == "literal_error":
        options = [part.strip("' ") for part in context["expected"].replace(" or ", ",").split(",")]
        guess = nearest(str(value), options)
        return (f"did you mean {guess!r}? " if guess else "") + f"must be {context['expected']}"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    for start, expected in KINDS.items():
        if kind.startswith(start):
            return f"must be {expected}"
    return message[:1].lower() + message[1:]


def shown(value: object) -> str:
    """A value as it would be typed, cut where it is long; an address without what may be a key."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = redact(str(value))
    text = re.sub(r"(https?://[^\s?#]*[?#])\S+", r"\1[hidden]", text)
    return text if len(text) <= 80 else text[:77] + "..."
