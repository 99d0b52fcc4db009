"""Chat messages in JSON: lists of {role, content}, or ShareGPT's {from, value}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plot_exp.data.examples import Message, Role
from plot_exp.errors import UserError

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def as_messages(value: Any, where: str) -> tuple[Message, ...]:
    """A list of messages.

    Raises:
        UserError: it is not a list of at least one message with a known role and text.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} must be text or a list of chat messages.")
    return tuple(_message(item, f"{where}, message {index}") for index, item in enumerate(value))


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise UserError(f"{where} is not an object with `role` and `content`.")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise UserError(f"{where} has the role {role!r}; expected one of {', '.join(_ROLES)}.")
    if not isinstance(content, str):
        raise UserError(f"{where} has no text under `content`.")
    return Message(_ROLES[role], content)


def as_response(value: Any, prompt: tuple[Message, ...], where: str) -> str:
    """The text of the answering turn: a text, a message, or messages that may repeat the prompt.

    Raises:
        UserError: the messages are not the prompt followed by one assistant turn.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [value]
    messages = as_messages(value, where)
    # A system turn may stand in the prompt alone or in its repetition alone.
    own = [message for message in messages if message.role != "system"]
    asked = [message for message in prompt if message.role != "system"]
    if len(own) > 1 and _stripped(own[:-1]) != _stripped(asked):
        raise UserError(
            f"{where} must be one assistant turn, alone or behind the same messages as the prompt."
        )
    if not own or own[-1].role != "assistant":
        raise UserError(f"{where} must end in an assistant turn.")
    return own[-1].content


def _stripped(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Roles and texts: a repeated prompt may differ in the white space around its turns."""
    return [(message.role, message.content.strip()) for message in messages]
