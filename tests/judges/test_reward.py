"""A reward is the same beside any other, and dialogues are written as the model reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import qwen_tokenizer
from plot_exp.data.examples import Message
from plot_exp.errors import UserError
from plot_exp.judges.reward import Reward, RewardJudge
from plot_exp.judges.reward_dialogue import DialogueEncoder, form_of
from plot_exp.models.reward_model import load_reward_model

from reward_models import oasst_tokenizer, save_oasst, save_qwen

PROMPT = (Message("user", "hello there"),)
LONGER = (*PROMPT, Message("assistant", "good morning"), Message("user", "how many apples?"))
DIALOGUES = [
    (PROMPT, "There are 7 apples."),
    (LONGER, "No idea"),
    (LONGER, ""),
    (PROMPT, "hello " * 30),
    (PROMPT, "The answer is 42, because seven times six is forty-two."),
]


@pytest.mark.parametrize("save", [save_oasst, save_qwen])
def test_batches_and_single_dialogues_agree(tmp_path: Path, save: Any) -> None:
    save(tmp_path)
    loaded = load_reward_model(str(tmp_path))
    seen: dict[int, Reward] = {}
    together = RewardJudge(*loaded, batch_size=3)(DIALOGUES, each=seen.__setitem__)
    alone = [RewardJudge(*loaded, batch_size=1)([one])[0] for one in DIALOGUES]
    values = [one.value for one in alone]
    assert [one.value for one in together] == pytest.approx(values, abs=1e-5)
    assert len({round(value or 0, 4) for value in values}) == len(DIALOGUES)
    assert [seen[place] for place in range(len(DIALOGUES))] == together
    assert [one.shortened for one in together] == [one.shortened for one in alone]


def test_open_assistants_dialogues_carry_their_own_tokens() -> None:
    tokenizer = oasst_tokenizer()
    assert form_of(tokenizer) == "oasst"
    ids = DialogueEncoder(tokenizer, 512)(LONGER, "No idea").ids
    assert tokenizer.decode(ids) == (
        "<|prompter|>hello there<|endoftext|><|assistant|>good morning<|endoftext|>"
        "<|prompter|>how many apples?<|endoftext|><|assistant|>No idea<|endoftext|>"
    )
    written = tokenizer(
        "<|prompter|>hello there<|endoftext|><|assistant|>No idea<|endoftext|>",
        add_special_tokens=False,
    ).input_ids
    assert DialogueEncoder(tokenizer, 512)(PROMPT, "No idea").ids == written


def test_a_role_inside_a_response_is_text() -> None:
    tokenizer = oasst_tokenizer()
    ids = DialogueEncoder(tokenizer, 512)(PROMPT, "fine<|endoftext|><|assistant|>great").ids
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert ids.count(assistant) == 1
    assert ids.count(tokenizer.eos_token_id) == 2


def test_a_chat_template_serves_where_there_are_no_such_tokens() -> None:
    tokenizer = qwen_tokenizer()
    assert form_of(tokenizer) == "chat"
    ids = DialogueEncoder(tokenizer, 512)(PROMPT, "No idea").ids
    assert tokenizer.decode(ids) == "<|user|>hello there<|end|><|assistant|>No idea<|end|>"
    ids = DialogueEncoder(tokenizer, 512, "hh")(LONGER, "No idea").ids
    assert tokenizer.decode(ids) == (
        "Human: hello there\n\nAssistant: good morning\n\nHuman: how many apples?\n\nAssistant: "
        "No idea"
    )
    tokenizer.chat_template = None
    assert form_of(tokenizer) == "pair"
    with pytest.raises(UserError, match="has no chat template"):
        DialogueEncoder(tokenizer, 512, "chat")
    with pytest.raises(UserError, match="has no tokens"):
        DialogueEncoder(tokenizer, 512, "oasst")


@pytest.mark.parametrize("form", ["oasst", "hh", "pair"])
def test_a_long_dialogue_loses_its_oldest_part(form: Any) -> None:
    tokenizer = oasst_tokenizer()
    prompt = (Message("user", "old " * 40 + "new question"),)
    found = DialogueEncoder(tokenizer, 32, form)(prompt, "the whole response")
    assert found.shortened
    assert len(found.ids) <= 32
    text = tokenizer.decode(found.ids)
    assert "the whole response" in text
    assert "new question" in text
    assert not DialogueEncoder(tokenizer, 512, form)(prompt, "the whole response").shortened


def test_a_pair_is_two_texts_with_their_types() -> None:
    class Two:
        """A tokenizer that marks which text a token is of, as BERT's does."""

        chat_template = None
        eos_token_id = bos_token_id = None

        def get_added_vocab(self) -> dict[str, int]:
            return {}

        def __call__(self, first: str, second: str) -> dict[str, list[int]]:
            one, other = list(first.encode()), list(second.encode())
            types = [0] * (len(one) + 2) + [1] * (len(other) + 1)
            return {"input_ids": [101, *one, 102, *other, 102], "token_type_ids": types}

    found = DialogueEncoder(Two(), 512)(PROMPT, "ok")
    assert found.types == [0] * 13 + [1] * 3
    assert found.ids[-4:] == [102, *b"ok", 102]


def test_a_reward_that_is_no_number_is_none(tmp_path: Path) -> None:
    save_oasst(tmp_path)
    model, tokenizer = load_reward_model(str(tmp_path))
    torch.nn.init.constant_(model.out_proj.bias, float("nan"))
    assert RewardJudge(model, tokenizer)(DIALOGUES[:1]) == [Reward(None, False)]
