"""One row of a preference file as an example: which layout it is in, and what each key holds."""

from __future__ import annotations

import math
from typing import Any

from plot_exp.data.examples import Message, PreferenceExample
from plot_exp.data.files import Row
from plot_exp.data.sources.chat import as_messages, as_response
from plot_exp.errors import UserError

LAYOUTS = (
    "prompt/chosen/rejected, chosen/rejected as chat messages, prompt/responses (with optional "
    "scores), prompt/completion, or prompt/completion/label"
)
CATEGORY = "all"

NO_SHARED_PROMPT = "chosen and rejected differ before the final response"


class PromptsDifferError(Exception):
    """Two message lists answer different prompts, so they cannot be compared."""


def to_example(row: Row) -> PreferenceExample:
    """Reads one row in whichever layout its keys show.

    Raises:
        UserError: a key is missing or holds something else; names row, line, keys and layouts.
        PromptsDifferError: chosen and rejected answer different prompts.
    """
    keys = {key for key, value in row.values.items() if value is not None}
    scores: tuple[float, ...] | None = None
    desirable: tuple[bool, ...] | None = None
    if keys & {"chosen", "rejected"}:
        prompt, responses = _pair(row, keys)
    elif "responses" in keys:
        prompt = _prompt(row)
        responses, scores = _ranking(row, prompt)
    elif "completion" in keys:
        prompt = _prompt(row)
        responses = (as_response(row.values["completion"], prompt, f"{row}, `completion`"),)
        if "label" in keys:
            desirable = (_label(row),)
    else:
        raise _missing(row, "`chosen` and `rejected`, `responses`, or `completion`")
    return PreferenceExample(
        prompt=_with_system(row, prompt),
        responses=responses,
        category=_text(row, "category") or CATEGORY,
        dataset="jsonl",
        origin=row.origin,
        scores=scores,
        desirable=desirable,
        answer=_text(row, "answer"),
    )


def _pair(row: Row, keys: set[str]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    for key in ("chosen", "rejected"):
        if key not in keys:
            raise _missing(row, f"`{key}`")
    chosen, rejected = row.values["chosen"], row.values["rejected"]
    if "prompt" in keys:
        prompt = _prompt(row)
        return prompt, (
            as_response(chosen, prompt, f"{row}, `chosen`"),
            as_response(rejected, prompt, f"{row}, `rejected`"),
        )
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise UserError(
            f"{row} has `chosen` and `rejected` as text but no `prompt` (its keys: "
            f"{', '.join(row.values)}); without a prompt both must be lists of chat messages that "
            "begin alike. For whole HH-RLHF dialogues use dataset=hh_rlhf."
        )
    one = as_messages(chosen, f"{row}, `chosen`")
    other = as_messages(rejected, f"{row}, `rejected`")
    if one[:-1] != other[:-1]:
        raise PromptsDifferError(NO_SHARED_PROMPT)
    prompt = one[:-1]
    if not prompt:
        raise UserError(f"{row} holds answers but no prompt: `chosen` has one message only.")
    return prompt, (
        as_response([_plain(one[-1])], prompt, f"{row}, `chosen`"),
        as_response([_plain(other[-1])], prompt, f"{row}, `rejected`"),
    )


def _plain(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _prompt(row: Row) -> tuple[Message, ...]:
    value = row.values.get("prompt")
    if value is None:
        raise _missing(row, "`prompt`")
    where = f"{row}, `prompt`"
    prompt = (Message("user", value),) if isinstance(value, str) else as_messages(value, where)
    if prompt[-1].role == "assistant":
        raise UserError(f"{where} ends in an assistant turn; expected a user turn to answer.")
    return prompt


def _with_system(row: Row, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    system = _text(row, "system")
    if not system:
        return prompt
    if prompt[0].role == "system":
        raise UserError(f"{row} has both a `system` key and a system turn; leave one out.")
    return (Message("system", system), *prompt)


def _ranking(
    row: Row, prompt: tuple[Message, ...]
) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    values = row.values["responses"]
    if not isinstance(values, list) or not values:
        raise UserError(f"{row}, `responses` must be a list of at least one response, best first.")
    responses = tuple(
        as_response(value, prompt, f"{row}, `responses[{index}]`")
        for index, value in enumerate(values)
    )
    scores = row.values.get("scores")
    if scores is None:
        return responses, None
    if (
        not isinstance(scores, list)
        or len(scores) != len(responses)
        or not all(_is_number(score) for score in scores)
    ):
        raise UserError(
            f"{row}, `scores` must be a list of {len(responses)} finite numbers, one for each "
            "response, higher is better."
        )
    # Stable: responses of one score stay in the order of the file.
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return tuple(responses[i] for i in order), tuple(float(scores[i]) for i in order)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _label(row: Row) -> bool:
    value = row.values["label"]
    if value in (0, 1) and not isinstance(value, float):
        return bool(value)
    raise UserError(f"{row}, `label` is {value!r}; expected true or false (or 1 or 0).")


def _text(row: Row, key: str) -> str | None:
    """An optional text; numbers are taken as they are written."""
    value = row.values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{row}, `{key}` must be text.")
    return str(value).strip()


def _missing(row: Row, what: str) -> UserError:
    keys = ", ".join(row.values) or "none"
    return UserError(f"{row} lacks {what} (its keys: {keys}); expected {LAYOUTS}.")
