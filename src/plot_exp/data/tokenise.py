"""Text to token ids: the prompt through the chat template, each response apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plot_exp.data.examples import Message, PreferenceExample
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

# For models that come without a chat template: the plain layout of HH-RLHF.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '\n\nAssistant: ' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class TokenisedExample:
    """An example as token ids.

    Attributes:
        example: what it was made from; metrics read its category and dataset.
        prompt_ids: the prompt through the chat template, with exactly one BOS where the
            tokenizer has one.
        response_ids: one tuple a response, in the example's order; each ends with EOS.
    """

    example: PreferenceExample
    prompt_ids: tuple[int, ...]
    response_ids: tuple[tuple[int, ...], ...]


class ChatTokeniser:
    """Prompts and responses as ids, never merged across their boundary.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.plain = tokenizer.chat_template is None
        self.eos_id: int = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        self.adds_bos = self.bos_id is not None and list(tokenizer("a").input_ids)[:1] == [
            self.bos_id
        ]

    def prompt_ids(self, prompt: Sequence[Message]) -> tuple[int, ...]:
        """The prompt's ids, up to where the assistant's answer begins.

        Raises:
            UserError: the model's chat template refuses the dialogue.
        """
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        template = PLAIN_TEMPLATE if self.plain else None
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:
            roles = ", ".join(message.role for message in prompt)
            raise UserError(
                f"the model's chat template refuses a dialogue with the turns {roles}: {error}; "
                "give another template with model.chat_template=FILE"
            ) from error
        ids = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        return tuple(self._with_one_bos(ids))

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        if self.bos_id is None:
            return ids
        start = 0
        while start < len(ids) and ids[start] == self.bos_id:
            start += 1
        return [self.bos_id, *ids[start:]] if start or self.adds_bos else ids

    def response_ids(self, responses: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of each response, ending with EOS.

        Text that spells a special token is read as plain text: data cannot end a turn.
        """
        texts = [f" {text.lstrip()}" if self.plain else text for text in responses]
        encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
        return [(*ids, self.eos_id) for ids in encoded.input_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def fit_prompt(
    tokeniser: ChatTokeniser, prompt: Sequence[Message], budget: int
) -> tuple[tuple[int, ...], bool]:
    """The prompt in at most `budget` tokens, losing its oldest part first.

    Whole turns go first (a system message stays as long as possible); the tokens of the last
    turn are cut from the left only when it alone is too long. BOS is kept.

    Returns:
        The ids, and whether anything was lost.
    """
    ids = tokeniser.prompt_ids(prompt)
    if len(ids) <= budget:
        return ids, False
    system = [message for message in prompt if message.role == "system"]
    turns = [message for message in prompt if message.role != "system"]
    while len(turns) > 1:
        turns = turns[1:]
        while len(turns) > 1 and turns[0].role == "assistant":
            turns = turns[1:]
        ids = tokeniser.prompt_ids([*system, *turns])
        if len(ids) <= budget:
            return ids, True
    ids = tokeniser.prompt_ids(turns)
    if len(ids) <= budget:
        return ids, True
    if tokeniser.bos_id is not None and ids[0] == tokeniser.bos_id:
        return (ids[0], *ids[len(ids) - budget + 1 :]), True
    return ids[len(ids) - budget :], True


def tokenise(
    examples: Sequence[PreferenceExample],
    tokeniser: ChatTokeniser,
    max_length: int,
    tally: Tally,
    split: str,
) -> list[TokenisedExample]:
    """Every example that fits as token ids; the tally counts what was cut or left out.

    Args:
        max_length: tokens of the prompt and the longest response together, EOS included.

    Raises:
        UserError: no example fits.
    """
    flat = [response for example in examples for response in example.responses]
    encoded = iter(tokeniser.response_ids(flat) if flat else [])
    tokenised = []
    for example in examples:
        responses = tuple(next(encoded) for _ in example.responses)
        longest = max(len(ids) for ids in responses)
        # A prompt needs one token at least, to predict the first response token from.
        if longest >= max_length:
            tally.drop(f"{split}: response longer than max_length {max_length}", example.origin)
            continue
        prompt, was_cut = fit_prompt(tokeniser, example.prompt, max_length - longest)
        if not prompt:
            tally.drop(f"{split}: empty prompt", example.origin)
            continue
        if was_cut:
            tally.change(f"{split}: oldest part of the prompt cut", example.origin)
        tokenised.append(TokenisedExample(example, prompt, responses))
    if examples and not tokenised:
        raise UserError(
            f"dataset.max_length={max_length}: none of the {len(examples)} {split} examples of "
            f"{tally.dataset} fits; raise it above the longest response"
        )
    return tokenised
