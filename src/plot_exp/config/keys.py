"""Every key of the schema, and the one that a mistyped key most likely means."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator

from pydantic import BaseModel

from plot_exp.config.losses import TERMS
from plot_exp.config.nearest import known, nearest


def sections_of(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """The section that an annotation holds, and whether it holds a mapping to such sections."""
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if origin in (typing.Union, types.UnionType):
        found = [sections_of(part) for part in typing.get_args(annotation)]
        return next((pair for pair in found if pair[0]), (None, False))
    if origin is dict:
        return sections_of(typing.get_args(annotation)[1])[0], True
    if origin is typing.Annotated:
        return sections_of(typing.get_args(annotation)[0])
    return None, False


def child(model: type[BaseModel], path: list[str]) -> tuple[type[BaseModel] | None, list[str]]:
    """The section below `model` that `path` leads into, and what of the path is left.

    An empty rest means that the path leads to a section or to a mapping of sections.
    """
    current = model
    while path:
        field = current.model_fields.get(path[0])
        if field is None:
            return current, path
        section, mapping = sections_of(field.annotation)
        if section is None:
            return None, path[1:]
        if mapping and current is model and path[0] == "loss":
            if len(path) == 1:
                return None, []
            if path[1] not in TERMS:
                return None, path[1:]
            section = TERMS[path[1]]
        path = path[2:] if mapping else path[1:]
        current = section
    return current, []


def dotted(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key below `model`, sections before what they hold; a mapping's own keys left out."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section, mapping = sections_of(field.annotation)
        if prefix == "" and name == "loss":
            for term, term_section in TERMS.items():
                yield f"loss.{term}"
                yield from dotted(term_section, f"loss.{term}.")
        elif section is not None and not mapping:
            yield from dotted(section, f"{prefix}{name}.")


def is_known(key: str, model: type[BaseModel]) -> bool:
    """Whether a dotted key leads to a field of the schema, or to a section."""
    return not child(model, key.split("."))[1]


def unknown_key(key: str, model: type[BaseModel]) -> str:
    """`unknown key 'los'; did you mean 'loss'?`, or what the enclosing section knows."""
    parts = key.split(".")
    section, rest = child(model, list(parts))
    base = parts[: len(parts) - len(rest)]
    if base[:1] == ["loss"] and section is None and rest:
        return f"unknown term {rest[0]!r} in the key {key!r}; {known(rest[0], TERMS)}"
    if section is None:
        return f"unknown key {key!r}; {'.'.join(base)!r} is a single value"
    if guess := nearest(rest[0], section.model_fields):
        return f"unknown key {key!r}; did you mean {'.'.join([*base, guess])!r}?"
    if base[:1] == ["loss"] and len(base) > 1:
        # Another term's setting of that name is another setting.
        place = ".".join(base)
        return f"unknown key {key!r}; {place} knows: {', '.join(sorted(section.model_fields))}"
    everywhere = list(dotted(model))
    by_last = [name for name in everywhere if name.rsplit(".", 1)[-1] == parts[-1]]
    guess = by_last[0] if by_last else nearest(key, everywhere)
    if guess:
        return f"unknown key {key!r}; did you mean {guess!r}?"
    place = ".".join(base) or "the configuration"
    return f"unknown key {key!r}; {place} knows: {', '.join(sorted(section.model_fields))}"
