"""The base model is made once for what it is made of, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.model import ModelConfig, TinyConfig
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import RunError
from plot_exp.models import tiny
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy
from plot_exp.progress import silent

SHAPE = TinyConfig(
    vocab_size=320,
    hidden_size=16,
    layers=1,
    heads=2,
    base_steps=6,
    base_epochs=100,
    base_batch_size=4,
)


def make(cache, examples, config=SHAPE, *, trained=True, max_length=64, bar=silent):
    return tiny.base_directory(config, examples, max_length, cache, trained=trained, bar=bar)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_folder_loads_and_generates(tmp_path, examples):
    config = ModelConfig(name=str(make(tmp_path, examples)))
    policy = Policy(load_model(config))
    tokeniser = ChatTokeniser(load_tokenizer(config))
    ids = torch.tensor([tokeniser.prompt_ids(examples[0].prompt)])
    assert (
        policy.model.generate(ids, max_new_tokens=3, min_new_tokens=3).shape[1] == len(ids[0]) + 3
    )
    assert policy.model.config.model_type == "qwen2"
    assert len(tokeniser.tokenizer) <= policy.vocab_size


def test_the_second_time_nothing_is_trained(tmp_path, examples, monkeypatch):
    folder = make(tmp_path, examples)

    def fail(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(tiny, "train_base", fail)
    assert make(tmp_path, examples) == folder
    with pytest.raises(AssertionError, match="trained again"):
        make(tmp_path, examples[:-1])


def test_what_makes_another_base_gives_another_folder(tmp_path, examples):
    folders = [
        make(tmp_path, examples),
        make(tmp_path, examples[:3]),
        make(tmp_path, examples, max_length=32),
        make(tmp_path, examples, SHAPE.model_copy(update={"base_seed": 1})),
        make(tmp_path, examples, SHAPE.model_copy(update={"base_steps": 7})),
        make(tmp_path, examples, trained=False),
    ]
    assert len(set(folders)) == len(folders)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path, examples):
    torch.manual_seed(1)
    one = weights(make(tmp_path / "a", examples))
    torch.manual_seed(2)
    assert same(one, weights(make(tmp_path / "b", examples)))
    other = make(tmp_path / "c", examples, SHAPE.model_copy(update={"base_seed": 1}))
    assert not same(one, weights(other))


def test_making_the_base_leaves_the_random_state_alone(tmp_path, examples):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    make(tmp_path, examples)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path, examples):
    config = SHAPE.model_copy(update={"base_steps": 60, "base_lr": 1e-2})
    losses = []
    for trained in (False, True):
        folder = make(tmp_path, examples, config, trained=trained)
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(folder))
        total = 0.0
        for example in examples:  # the chosen and the rejected alike
            prompt = tokeniser.prompt_ids(example.prompt)
            for response in tokeniser.response_ids(example.responses):
                ids = torch.tensor([prompt + response])
                total += float(model(input_ids=ids, labels=ids).loss.detach())
        losses.append(total)
    assert losses[1] < 0.6 * losses[0]


def test_the_base_is_trained_on_the_ids_that_the_folder_gives(tmp_path, example, monkeypatch):
    seen = []
    monkeypatch.setattr(tiny, "train_base", lambda model, tokenizer, *_: seen.append(tokenizer))
    pieces = ["don't", "DON'T", "\n\n", " \n", "(hello)", "...", "12,5", "é", " ", "e\u0301"]
    draw = random.Random(0)
    texts = ["".join(draw.choices(pieces, k=8)) for _ in range(200)]
    folder = make(
        tmp_path, [example("a", texts[:100])], SHAPE.model_copy(update={"vocab_size": 400})
    )
    loaded = load_tokenizer(ModelConfig(name=str(folder)))
    assert seen[0](texts).input_ids == loaded(texts).input_ids
    assert loaded.get_vocab() == seen[0].get_vocab()
    assert max(loaded.get_vocab().values()) < 400


def test_digits_stand_alone(tmp_path, examples):
    tokenizer = load_tokenizer(ModelConfig(name=str(make(tmp_path, examples, trained=False))))
    assert tokenizer.tokenize("424242") == list("424242")


def test_an_error_leaves_no_folder(tmp_path, examples, monkeypatch):
    def fail(*_):
        raise ValueError("broken")

    monkeypatch.setattr(tiny, "train_base", fail)
    with pytest.raises(ValueError, match="broken"):
        make(tmp_path, examples)
    assert list((tmp_path / "tiny").iterdir()) == []


def test_a_disk_that_cannot_be_written_gets_one_sentence(tmp_path, examples):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        make(tmp_path / "file", examples)


def _make_slowly(cache: Path, examples, started) -> None:
    def bar(items, label, total=None):
        for item in items:
            started.set()
            time.sleep(0.05)
            yield item

    torch.set_num_threads(1)
    make(cache, examples, bar=bar)


@pytest.fixture
def spawn():
    return multiprocessing.get_context("fork")


def test_two_processes_at_once_both_end_well(tmp_path, examples, spawn):
    running = [
        spawn.Process(target=_make_slowly, args=(tmp_path, examples, spawn.Event()))
        for _ in range(2)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0]
    (folder,) = (tmp_path / "tiny").iterdir()
    # Another process may use another number of threads, which rounds differently.
    alone = weights(make(tmp_path / "alone", examples))
    torch.testing.assert_close(weights(folder), alone, rtol=1e-3, atol=1e-5)


def test_a_killed_one_is_not_taken_for_whole(tmp_path, examples, spawn):
    started = spawn.Event()
    process = spawn.Process(target=_make_slowly, args=(tmp_path, examples, started))
    process.start()
    assert started.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    left = list((tmp_path / "tiny").iterdir())
    assert all(folder.name.startswith(".unfinished-") for folder in left)
    folder = make(tmp_path, examples)
    assert same(weights(folder), weights(make(tmp_path / "alone", examples)))


def test_few_texts_are_not_learned_by_heart():
    config = TinyConfig(base_steps=700, base_epochs=5, base_batch_size=32)
    assert tiny.base_steps(config, rows=5100) == 700
    assert tiny.base_steps(config, rows=540) == 85
    assert tiny.base_steps(config, rows=1) == 1
