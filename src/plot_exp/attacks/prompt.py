"""Where adversarial tokens stand in what the model reads: chat template, one BOS, exact ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from plot_exp.data.behaviours import Behaviour
from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError

# Unlike any adversarial text at both of its ends, to find out which ids do not depend on it.
PROBE = " a few plain words"
MARKER = "\ue0ff"


class Vocabulary:
    """The texts of single tokens, and which of them an attack may use.

    Args:
        size: V, rows of the embedding; those beyond the tokenizer's are never used.
    """

    def __init__(self, tokeniser: ChatTokeniser, size: int) -> None:
        tokenizer = tokeniser.tokenizer
        self.anchor = int(tokenizer("a", add_special_tokens=False).input_ids[-1])
        known = min(size, len(tokenizer))
        self.texts = self.decode(tokenizer, [[token] for token in range(known)], self.anchor)
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        usable = [
            bool(text) and token not in special and "\ufffd" not in text
            for token, text in enumerate(self.texts)
        ]
        self.usable = _mask(usable, size)
        plain = [text.isascii() and text.isprintable() for text in self.texts]
        self.ascii = self.usable & _mask(plain, size)
        self.opening = self.usable & _mask(
            [text.startswith(" ") and text.strip() != "" for text in self.texts], size
        )

    @staticmethod
    def decode(tokenizer: Any, rows: Sequence[Sequence[int]], anchor: int) -> list[str]:
        """The text of ids as it reads behind other text; some tokenizers eat a first blank."""
        options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        before = tokenizer.decode([anchor], **options)
        whole = tokenizer.batch_decode([[anchor, *row] for row in rows], **options)
        return [text[len(before) :] for text in whole]

    def allowed(self, positions: int, *, ascii_only: bool, opens: bool) -> Tensor:
        """[positions, V]: which token may stand where.

        Args:
            opens: the first position takes only tokens that begin with a blank, so that the
                request before it stays as it is.
        """
        mask = (self.ascii if ascii_only else self.usable).expand(positions, -1).clone()
        if opens:
            mask[0] &= self.opening
        return mask


class AttackedPrompt:
    """The ids of one request with a slot for adversarial tokens, and the target behind them.

    The user turn is request + `lead` + text of the slot + `trail`; lead and trail hold what of the
    initial text cannot be told apart from its surroundings in tokens, and are usually empty.

    Args:
        initial: the adversarial text to begin with, without the blank before it.

    Attributes:
        before, slot, after, target: ids; together they are what the loss is taken on.

    Raises:
        UserError: the tokenizer and template leave no such slot.
    """

    def __init__(
        self, tokeniser: ChatTokeniser, vocabulary: Vocabulary, behaviour: Behaviour, initial: str
    ) -> None:
        self.tokeniser, self.request = tokeniser, behaviour.request
        self.target = tokeniser.response_ids([behaviour.target])[0][:-1]
        text = f" {initial.strip()}"
        ids, probe = self.encode(self.request + text), self.encode(self.request + PROBE)
        start = _shared(ids, probe)
        end = len(ids) - _shared(ids[start:][::-1], probe[start:][::-1])
        self.before = ids[:start]
        self.anchor = self.before[-1] if self.before else vocabulary.anchor
        slot, self.lead, self.trail = self._slot(ids[start:end], text)
        self.slot, self.after = ids[start : start + len(slot)], ids[start + len(slot) :]
        self.opens = text.startswith(" ") and not self.lead
        self._head, self._tail = self._surroundings()
        if not slot or not self.survive([self.slot])[0]:
            raise UserError(
                f"the adversarial text {initial!r} has no tokens of its own between the request "
                "and the end of the user turn; choose another initial text or chat template"
            )

    def _slot(self, ids: Sequence[int], text: str) -> tuple[Sequence[int], str, str]:
        """As many ids as decode to a part of `text`, and what of it stands before and behind."""
        for lead in dict.fromkeys(("", " ")):
            for length in range(len(ids), 0, -1):
                found = self.slot_text(ids[:length])
                if found and text.startswith(lead + found):
                    return ids[:length], lead, text[len(lead + found) :]
        return (), "", ""

    def _surroundings(self) -> tuple[str, str]:
        """What the chat template writes before and behind the user turn."""
        tokenizer = self.tokeniser.tokenizer
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": MARKER}],
            chat_template=self.tokeniser.template,
            add_generation_prompt=True,
            tokenize=False,
        )
        head, _, tail = rendered.partition(MARKER)
        return head, tail

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a user turn, as the model gets them."""
        return user_turn_ids(self.tokeniser, text)

    def slot_text(self, ids: Sequence[int]) -> str:
        """What ids read as in the slot."""
        return Vocabulary.decode(self.tokeniser.tokenizer, [ids], self.anchor)[0]

    def text(self, ids: Sequence[int]) -> str:
        """The whole user turn with these ids in the slot."""
        return self.request + self.lead + self.slot_text(ids) + self.trail

    def full(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The prompt's ids with these in the slot."""
        return (*self.before, *ids, *self.after)

    def survives(self, ids: Sequence[int]) -> bool:
        """Whether the model, given the text, gets exactly these ids."""
        return self.encode(self.text(ids)) == self.full(ids)

    def survive(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """`survives` of many rows at once.

        A row passes only where the template cannot change it: no blank at the turn's end (many
        templates strip), and no spelling of a special token.
        """
        tokenizer = self.tokeniser.tokenizer
        texts = Vocabulary.decode(tokenizer, rows, self.anchor)
        turns = [self.request + self.lead + text + self.trail for text in texts]
        if self.tokeniser.spells_special(self.request):
            return [self.survives(row) for row in rows]
        encoded = tokenizer(
            [self._head + turn + self._tail for turn in turns], add_special_tokens=False
        ).input_ids
        bos = self.tokeniser.bos_id
        found = []
        for row, turn, ids in zip(rows, turns, encoded, strict=True):
            expected = list(self.full(row))
            same = _without(ids, bos) == _without(expected, bos)
            found.append(same and turn == turn.strip() and not self.tokeniser.spells_special(turn))
        return found


def user_turn_ids(tokeniser: ChatTokeniser, text: str) -> tuple[int, ...]:
    """The ids of a dialogue of one user turn, up to where the answer begins."""
    return tokeniser.prompt_ids([Message("user", text)])


def _without(ids: list[int], bos: int | None) -> list[int]:
    """The ids behind any BOS at their beginning; how many there are `ChatTokeniser` decides."""
    start = 0
    while bos is not None and start < len(ids) and ids[start] == bos:
        start += 1
    return ids[start:]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def _mask(values: Sequence[bool], size: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[: len(values)] = torch.tensor(values, dtype=torch.bool)
    return mask
