"""Text to token ids: the prompt through the chat template, each response apart from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from plot_exp.data.encoded import KEPT, PROMPT_EMPTY, RESPONSE_TOO_LONG, Encoded
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

# Some templates write today's date into the system turn; a run must not change at midnight.
# Llama 3.2's template falls back to this day where it knows no other.
FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
# Unicode's private use area: code points without a meaning, to stand in for text.
PRIVATE_USE = range(0xE000, 0xF8FF)


@dataclass(frozen=True)
class TokenisedExample:
    """An example as token ids.

    Attributes:
        example: what it was made from; metrics read its category and dataset.
        prompt_ids: the prompt through the chat template, with exactly one BOS where the
            tokenizer or the template writes one.
        response_ids: one tuple a response, in the example's order; each ends with EOS.
    """

    example: PreferenceExample
    prompt_ids: tuple[int, ...]
    response_ids: tuple[tuple[int, ...], ...]


class ChatTokeniser:
    """Prompts and responses as ids, never merged across their boundary.

    Text that spells a special token is read as plain text: data can neither end a turn nor
    forge one.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.plain = tokenizer.chat_template is None
        self.template: str = PLAIN_TEMPLATE if self.plain else tokenizer.get_chat_template()
        if "strftime_now" in self.template:
            self.template = FIXED_DATE + self.template
        self.eos_id: int = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        self.adds_bos = self.bos_id is not None and list(tokenizer("a").input_ids)[:1] == [
            self.bos_id
        ]
        special = {*tokenizer.all_special_tokens} | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def spells_special(self, text: str) -> bool:
        """Whether the text holds the spelling of a special token."""
        return self._special.search(text) is not None

    def prompt_ids(self, prompt: Sequence[Message]) -> tuple[int, ...]:
        """The prompt's ids, up to where the assistant's answer begins.

        Raises:
            UserError: the model's chat template refuses the dialogue.
        """
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[Sequence[Message]]) -> list[tuple[int, ...]]:
        """`prompt_ids` of many prompts, encoded together: a fast tokenizer uses every core.

        Raises:
            UserError: the model's chat template refuses a dialogue.
        """
        plain: dict[int, str] = {}
        spelled: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            contents = [message.content for message in prompt]
            if any(map(self.spells_special, contents)):
                spelled[place] = self._ids_with_spelled_tokens(prompt, contents)
            else:
                plain[place] = self._render(prompt, contents)
        encoded = self._encode_many(list(plain.values())) if plain else []
        found = spelled | dict(zip(plain, encoded, strict=True))
        return [tuple(self._with_one_bos(found[place])) for place in range(len(prompts))]

    def _ids_with_spelled_tokens(
        self, prompt: Sequence[Message], contents: Sequence[str]
    ) -> list[int]:
        """Ids where contents spell special tokens, each spelled one encoded as plain text.

        One unused character stands for each of them while the template is rendered.
        """
        whole = "".join(contents)
        spelled = sorted(set(self._special.findall(whole)))
        unused = (chr(code) for code in PRIVATE_USE if chr(code) not in whole)
        stand_in = dict(zip(spelled, unused, strict=False))
        text_of = {character: text for text, character in stand_in.items()}
        replaced = [self._special.sub(lambda found: stand_in[found[0]], one) for one in contents]
        ids: list[int] = []
        stand_ins = re.compile(f"([{''.join(text_of)}])")
        for piece in filter(None, stand_ins.split(self._render(prompt, replaced))):
            ids += self._encode(text_of.get(piece, piece), plain=piece in text_of)
        return ids

    def _render(self, prompt: Sequence[Message], contents: Sequence[str]) -> str:
        messages = [
            {"role": message.role, "content": content}
            for message, content in zip(prompt, contents, strict=True)
        ]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:
            roles = ", ".join(message.role for message in prompt)
            raise UserError(
                f"the model's chat template refuses a dialogue with the turns {roles}: {error}; "
                "give another template with model.chat_template=FILE"
            ) from error
        return rendered

    def _encode(self, text: str, plain: bool = False) -> list[int]:
        return self._encode_many([text], plain)[0]

    def _encode_many(self, texts: list[str], plain: bool = False) -> list[list[int]]:
        encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=plain)
        return list(encoded.input_ids)

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        if self.bos_id is None:
            return ids
        start = 0
        while start < len(ids) and ids[start] == self.bos_id:
            start += 1
        return [self.bos_id, *ids[start:]] if start or self.adds_bos else ids

    def response_ids(self, responses: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of each response, ending with EOS."""
        texts = [f" {text.lstrip()}" if self.plain else text for text in responses]
        return [(*ids, self.eos_id) for ids in self._encode_many(texts, plain=True)]

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
    ids = tokeniser.prompt_ids(turns or system)
    if len(ids) <= budget:
        return ids, True
    if tokeniser.bos_id is not None and ids[0] == tokeniser.bos_id:
        return (ids[0], *ids[len(ids) - budget + 1 :]), True
    return ids[len(ids) - budget :], True


def encode(
    examples: Sequence[PreferenceExample], tokeniser: ChatTokeniser, max_length: int
) -> Encoded:
    """Every example that fits as token ids, and what became of the others.

    Args:
        max_length: tokens of the prompt and the longest response together, EOS included.
    """
    flat = [response for example in examples for response in example.responses]
    encoded = iter(tokeniser.response_ids(flat) if flat else [])
    responses = [[next(encoded) for _ in example.responses] for example in examples]
    # A prompt needs one token at least, to predict the first response token from.
    room = [max_length - max(map(len, found)) for found in responses]
    fitting = [example.prompt for example, left in zip(examples, room, strict=True) if left > 0]
    prompts = iter(tokeniser.prompts_ids(fitting))
    outcome, cut, spelled, sequences = [], [], [], []
    for example, left, found in zip(examples, room, responses, strict=True):
        prompt: tuple[int, ...] = next(prompts) if left > 0 else ()
        was_cut = len(prompt) > left > 0
        if was_cut:
            prompt, _ = fit_prompt(tokeniser, example.prompt, left)
        kept = KEPT if prompt else PROMPT_EMPTY if left > 0 else RESPONSE_TOO_LONG
        texts = (*(message.content for message in example.prompt), *example.responses)
        outcome.append(kept)
        cut.append(was_cut)
        spelled.append(any(map(tokeniser.spells_special, texts)))
        sequences += [prompt, *found] if kept == KEPT else []
    return Encoded.of(outcome, cut, spelled, sequences)


Encode = Callable[[Sequence[PreferenceExample], ChatTokeniser, int], Encoded]


def tokenise(
    examples: Sequence[PreferenceExample],
    tokeniser: ChatTokeniser,
    max_length: int,
    tally: Tally,
    split: str,
    encode: Encode = encode,
) -> list[TokenisedExample]:
    """Every example that fits as token ids; the tally counts what was cut or left out.

    What is left out no longer counts as kept.

    Args:
        max_length: tokens of the prompt and the longest response together, EOS included.
        encode: does the work, or finds it done (`token_cache`).

    Raises:
        UserError: no example fits.
    """
    reasons = {
        RESPONSE_TOO_LONG: f"{split}: response longer than max_length {max_length}",
        PROMPT_EMPTY: f"{split}: empty prompt",
    }
    encoded = encode(examples, tokeniser, max_length)
    sequences = encoded.sequences()
    facts = (encoded.outcome.tolist(), encoded.cut.tolist(), encoded.spelled.tolist())
    tokenised = []
    for example, outcome, was_cut, spelled in zip(examples, *facts, strict=True):
        if outcome != KEPT:
            tally.drop(reasons[outcome], example.origin)
            if split in tally.kept:  # the reader counted it as kept
                tally.keep(split, -1)
            continue
        if spelled:
            reason = f"{split}: text that spells a special token, read as plain text"
            tally.change(reason, example.origin)
        if was_cut:
            tally.change(f"{split}: oldest part of the prompt cut", example.origin)
        prompt = next(sequences)
        responses = tuple(next(sequences) for _ in example.responses)
        tokenised.append(TokenisedExample(example, prompt, responses))
    if examples and not tokenised:
        raise UserError(
            f"dataset.max_length={max_length}: none of the {len(examples)} {split} examples of "
            f"{tally.dataset} fits; raise it above the longest response"
        )
    return tokenised
