"""Dialogues as a reward model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from plot_exp.data.examples import Message
from plot_exp.errors import UserError

Form = Literal["oasst", "chat", "pair", "hh"]
FORMS: tuple[str, ...] = get_args(Form)

# Open-Assistant's turns: a token for the role, the text, and the end token.
_OASST = {"user": "<|prompter|>", "assistant": "<|assistant|>", "system": "<|system|>"}
_HH = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": ""}


@dataclass(frozen=True)
class Encoded:
    """A dialogue as ids.

    Attributes:
        types: which of two texts each token is of, for models that ask for it.
        shortened: whether the oldest part did not fit.
    """

    ids: list[int]
    types: list[int] | None = None
    shortened: bool = False


def form_of(tokenizer: Any) -> Form:
    """Open-Assistant's tokens where the tokenizer has them, its chat template, or two texts."""
    vocabulary = tokenizer.get_added_vocab()
    if _OASST["user"] in vocabulary and _OASST["assistant"] in vocabulary:
        return "oasst"
    return "chat" if tokenizer.chat_template else "pair"


class DialogueEncoder:
    """Dialogues to token ids.

    Args:
        form: `oasst`, `chat` (the tokenizer's template), `pair` (prompt and response as two texts)
            or `hh` (Human and Assistant turns as one text); None takes what the tokenizer is for.
        max_length: tokens; a longer dialogue loses its oldest part.

    Raises:
        UserError: the tokenizer lacks what the form needs.
    """

    def __init__(self, tokenizer: Any, max_length: int, form: Form | None = None) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.form = form or form_of(tokenizer)
        if self.form == "chat" and not tokenizer.chat_template:
            raise UserError("the reward model's tokenizer has no chat template; name another form")
        if self.form == "oasst" and form_of(tokenizer) != "oasst":
            raise UserError(
                f"the reward model's tokenizer has no tokens {_OASST['user']} and "
                f"{_OASST['assistant']}; name another form"
            )

    def __call__(self, prompt: Sequence[Message], response: str) -> Encoded:
        """The ids, and whether the oldest part was cut off."""
        if self.form == "pair":
            return self._pair(prompt, response)
        ids = self._ids([*prompt, Message("assistant", response)])
        if len(ids) <= self.max_length:
            return Encoded(ids)
        # A token that every text begins with stays.
        start = ids[: int(ids[0] == self.tokenizer.bos_token_id)]
        return Encoded([*start, *ids[len(ids) - self.max_length + len(start) :]], shortened=True)

    def _ids(self, messages: list[Message]) -> list[int]:
        if self.form == "oasst":
            return self._oasst(messages)
        if self.form == "chat":
            turns = [{"role": turn.role, "content": turn.content} for turn in messages]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False)
            return self._encode(text, add_special_tokens=False)
        return self._encode(_as_hh(messages))

    def _oasst(self, messages: list[Message]) -> list[int]:
        """Turn by turn, so that a role's name inside a text is text."""
        ids: list[int] = []
        end = self.tokenizer.eos_token_id
        for turn in messages:
            text = self._encode(turn.content, add_special_tokens=False, split_special_tokens=True)
            ids += [self.tokenizer.convert_tokens_to_ids(_OASST[turn.role]), *text, end]
        return ids

    def _pair(self, prompt: Sequence[Message], response: str) -> Encoded:
        """Two texts, with the tokenizer's own marks around and between them."""
        first = prompt[0].content if len(prompt) == 1 else _as_hh(prompt)
        whole = self.tokenizer(first, response)
        ids, types = whole["input_ids"], whole.get("token_type_ids")
        excess = len(ids) - self.max_length
        if excess <= 0:
            return Encoded(list(ids), types and list(types))
        plain = self._encode(first, add_special_tokens=False)
        if excess < len(plain):
            first = self.tokenizer.decode(plain[excess:])
        cut = self.tokenizer(first, response, truncation=True, max_length=self.max_length)
        types = cut.get("token_type_ids")
        return Encoded(list(cut["input_ids"]), types and list(types), shortened=True)

    def _encode(self, text: str, **options: bool) -> list[int]:
        return list(self.tokenizer(text, **options)["input_ids"])


def _as_hh(messages: Sequence[Message]) -> str:
    return "".join(_HH[turn.role] + turn.content for turn in messages).strip()
