"""What makes an example unusable in any dataset: nothing to compare, nothing to say, no Unicode."""

from __future__ import annotations

from plot_exp.data.examples import PreferenceExample
from plot_exp.data.tally import Tally

IDENTICAL = "chosen and rejected are identical"
IDENTICAL_RANKED = "two ranked responses are identical"
EMPTY_RESPONSE = "a response is empty"
EMPTY_PROMPT = "the prompt is empty"
NOT_UNICODE = "the text holds half a surrogate pair, which is not valid Unicode"


def screen(example: PreferenceExample, tally: Tally) -> bool:
    """Whether the example can be used; where not, it is dropped from the tally by reason."""
    reason = unusable(example)
    if reason is not None:
        tally.drop(reason, example.origin)
    return reason is None


def unusable(example: PreferenceExample) -> str | None:
    """The reason why the example cannot be used, or None."""
    if not any(message.content.strip() for message in example.prompt if message.role == "user"):
        return EMPTY_PROMPT
    if not all(response.strip() for response in example.responses):
        return EMPTY_RESPONSE
    texts = [message.content for message in example.prompt] + list(example.responses)
    if not all(_is_unicode(text) for text in texts):
        return NOT_UNICODE
    if example.kind == "ranked" and len(set(example.responses)) < len(example.responses):
        return IDENTICAL if len(example.responses) == 2 else IDENTICAL_RANKED
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
