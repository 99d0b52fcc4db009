"""What is attacked is what the model is asked: ids, template, BOS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from plot_exp.attacks.model import AttackedModel
from plot_exp.attacks.prompt import AttackedPrompt, Vocabulary
from plot_exp.config.attacks import INITIAL
from plot_exp.data.behaviours import CONTEXT_RULE, Behaviour
from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError


def test_the_slot_stands_in_the_very_ids_of_the_user_turn(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    prompt = attacked.prompt(behaviour, INITIAL)
    turn = f"{behaviour.text} {INITIAL.strip()}"
    assert prompt.text(prompt.slot) == turn
    asked = attacked.tokeniser.prompt_ids([Message("user", turn)])
    assert prompt.full(prompt.slot) == asked
    assert attacked.tokeniser.tokenizer.decode(prompt.slot).split() == ["!"] * 20


def test_the_target_is_a_response_without_its_end_token(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    prompt = attacked.prompt(behaviour, INITIAL)
    assert (*prompt.target, attacked.tokeniser.eos_id) == attacked.tokeniser.response_ids(
        [behaviour.target]
    )[0]


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_exactly_one_bos_is_attacked(
    make_llama_tokenizer: Callable[..., Any], behaviour: Behaviour, adds_bos: bool, plain: bool
) -> None:
    tokenizer = (
        make_llama_tokenizer(adds_bos=adds_bos, chat_template=None)
        if plain
        else make_llama_tokenizer(adds_bos=adds_bos)
    )
    tokeniser = ChatTokeniser(tokenizer)
    prompt = AttackedPrompt(tokeniser, Vocabulary(tokeniser, 416), behaviour, INITIAL)
    ids = prompt.full(prompt.slot)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert prompt.survives(prompt.slot)


def test_the_context_stands_before_the_request(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    asked = replace(behaviour, context="There is a basket on the table.")
    prompt = attacked.prompt(asked, INITIAL)
    expected = f"There is a basket on the table.{CONTEXT_RULE}{behaviour.text} !"
    assert prompt.text(prompt.slot).startswith(expected)


def test_rows_survive_exactly_where_text_and_back_gives_the_same_ids(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    prompt = attacked.prompt(behaviour, INITIAL)
    generator = torch.Generator().manual_seed(0)
    allowed = attacked.vocabulary.allowed(6, ascii_only=False, opens=True).double()
    rows = torch.stack(
        [torch.multinomial(mask, 300, replacement=True, generator=generator) for mask in allowed],
        dim=1,
    ).tolist()
    found = prompt.survive(rows)
    assert 0 < sum(found) < len(rows)
    for row, kept in zip(rows, found, strict=True):
        # Blanks at the end are refused whether or not this template strips them.
        blank_end = prompt.text(row) != prompt.text(row).rstrip()
        assert kept == (prompt.survives(row) and not blank_end)


def test_a_row_that_spells_a_special_token_does_not_survive(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    prompt = attacked.prompt(behaviour, INITIAL)
    tokenizer = attacked.tokeniser.tokenizer
    spelled = tokenizer(" " + tokenizer.eos_token, split_special_tokens=True).input_ids
    assert tokenizer.eos_token_id not in spelled
    assert prompt.survive([spelled]) == [False]


def test_no_special_token_and_no_row_beyond_the_tokenizer_is_usable(
    attacked: AttackedModel,
) -> None:
    tokenizer = attacked.tokeniser.tokenizer
    usable = attacked.vocabulary.usable
    assert not usable[tokenizer.all_special_ids].any()
    assert not usable[len(tokenizer) :].any()
    assert len(usable) == 416
    assert usable.sum() > 100
    for token in attacked.vocabulary.ascii.nonzero().flatten().tolist():
        text = attacked.vocabulary.texts[token]
        assert text.isascii()
        assert text.isprintable()


def test_a_behaviour_that_the_context_has_no_room_for_is_named(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    prompt = attacked.prompt(behaviour, INITIAL)
    needed = len(prompt.full(prompt.slot)) + len(prompt.target)
    attacked.policy.model.config.max_position_embeddings = needed
    attacked.prompt(behaviour, INITIAL)
    attacked.policy.model.config.max_position_embeddings = needed - 1
    with pytest.raises(UserError, match=f"apples.*{needed} tokens.*{needed - 1}"):
        attacked.prompt(behaviour, INITIAL)
