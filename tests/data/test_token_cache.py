"""Tokenised data are found again by everything they depend on, and by nothing less."""

from __future__ import annotations

import copy
import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from plot_exp.data import token_cache
from plot_exp.data.examples import Message
from plot_exp.data.tally import Tally
from plot_exp.data.token_cache import TokenCache, fingerprint
from plot_exp.data.tokenise import ChatTokeniser, encode, tokenise


@pytest.fixture
def tokeniser(llama_dir):
    return ChatTokeniser(AutoTokenizer.from_pretrained(llama_dir))


@pytest.fixture
def data(example):
    """A ranking, a pair with a spelled special token, one too long, one whose prompt is cut."""
    return [
        example("hello", ["apples", "no idea", "a basket"], 0),
        example("hello </s> there", ["one", "two"], 1),
        example("again", ["word " * 60, "x"], 2),
        example("many words " * 20, ["yes", "no"], 3),
    ]


def result(data, tokeniser, encode, length=48):
    tally = Tally("toy", kept=Counter(train=len(data)))
    items = tokenise(data, tokeniser, length, tally, "train", encode)
    return [(item.prompt_ids, item.response_ids) for item in items], tally.as_dict()


def no_work(*_):
    raise AssertionError("tokenised again")


def test_the_second_time_nothing_is_tokenised_and_the_tally_is_the_same(
    tmp_path, data, tokeniser, monkeypatch
):
    plain = result(data, tokeniser, encode)
    first = result(data, tokeniser, TokenCache(tmp_path))
    monkeypatch.setattr(token_cache, "encode", no_work)
    assert result(data, tokeniser, TokenCache(tmp_path)) == first == plain
    assert len(plain[0]) == 3
    assert plain[1]["changed"]
    assert plain[1]["dropped"]


def changed(tokeniser, change):
    other = copy.deepcopy(tokeniser.tokenizer)
    change(other)
    return ChatTokeniser(other)


def test_anything_that_the_ids_depend_on_makes_another_key(data, tokeniser, example):
    def template(one):
        one.chat_template = one.chat_template.replace("turn", "TURN")

    def words(one):
        one.add_tokens(["apples"])

    def special(one):
        one.add_special_tokens({"additional_special_tokens": ["<|new|>"]})

    def end(one):
        one.eos_token = "<pad>"

    other_role = [Message("system", "hello")]
    keys = [
        fingerprint(data, tokeniser, 48),
        fingerprint(data, tokeniser, 47),
        fingerprint(data[:-1], tokeniser, 48),
        fingerprint([*data[1:], data[0]], tokeniser, 48),
        fingerprint([example([("user", "hel"), ("user", "lo")], ["a", "b"])], tokeniser, 48),
        fingerprint([example([("user", "hell"), ("user", "o")], ["a", "b"])], tokeniser, 48),
        fingerprint([example("hello", ["ab"])], tokeniser, 48),
        fingerprint([example("hello", ["a", "b"])], tokeniser, 48),
        fingerprint([example([(m.role, m.content) for m in other_role], ["ab"])], tokeniser, 48),
        *(
            fingerprint(data, changed(tokeniser, how), 48)
            for how in (template, words, special, end)
        ),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_depend_on_earlier_calls(data, tokeniser):
    key = fingerprint(data, tokeniser, 48)
    tokeniser.tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert fingerprint(data, tokeniser, 48) == key


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_torn_or_foreign_file_is_made_again(tmp_path, data, tokeniser, capsys, keep):
    expected = result(data, tokeniser, TokenCache(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    assert result(data, tokeniser, TokenCache(tmp_path)) == expected
    assert "is damaged" in capsys.readouterr().out
    assert path.read_bytes() == whole


def test_a_file_under_another_key_is_not_taken(tmp_path, data, tokeniser):
    result(data, tokeniser, TokenCache(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    other = result(data[:2], tokeniser, TokenCache(tmp_path))
    (second,) = set(tmp_path.glob("*.safetensors")) - {path}
    path.rename(second)
    assert result(data[:2], tokeniser, TokenCache(tmp_path)) == other


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, data, tokeniser, capsys):
    (tmp_path / "file").write_text("")
    plain = result(data, tokeniser, encode)
    assert result(data, tokeniser, TokenCache(tmp_path / "file")) == plain
    assert "are not kept" in capsys.readouterr().out


def _fill(folder: Path, data, tokeniser) -> None:
    result(data, tokeniser, TokenCache(folder))


def test_two_writers_leave_one_whole_file(tmp_path, data, tokeniser):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_fill, args=(tmp_path, data, tokeniser)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1
    assert result(data, tokeniser, TokenCache(tmp_path)) == result(data, tokeniser, encode)
