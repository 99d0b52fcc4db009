"""Batched answers are the answers that each prompt gets alone."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.evals.generation import Generator, Sampling
from plot_exp.models.policy import Policy

PROMPTS = [
    (Message("user", text),)
    for text in ("hi", "how many apples are there in the basket on the table", "say 42", "")
]


@pytest.fixture
def make(saved_model):
    model = AutoModelForCausalLM.from_pretrained(saved_model)
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(saved_model))

    def generator(**changes):
        settings = {"max_new_tokens": 12, "batch_size": 3, "max_prompt": 128}
        return Generator(Policy(model), tokeniser, **(settings | changes))

    return generator


def greedy_by_hand(generator, prompt):
    """Token by token, without cache, padding or generate()."""
    ids = list(generator.encode(prompt))
    start = len(ids)
    while len(ids) - start < generator.max_new_tokens:
        with torch.no_grad():
            logits = generator.policy.model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == generator.tokeniser.eos_id:
            break
    return tuple(ids[start:])


def favour_end(generator):
    """Makes EOS likely enough that some answers end early and others do not."""
    weight = generator.policy.model.get_output_embeddings().weight
    with torch.no_grad():
        weight[generator.tokeniser.eos_id] *= 3


@pytest.mark.parametrize("end", [False, True])
def test_greedy_answers_are_those_of_each_prompt_alone(make, end):
    generator = make()
    if end:
        favour_end(generator)
    found = [answer for (answer,) in generator(PROMPTS)]
    expected = [greedy_by_hand(generator, prompt) for prompt in PROMPTS]
    assert [answer.ids for answer in found] == expected
    ends = generator.tokeniser.eos_id
    assert [answer.finished for answer in found] == [ids[-1] == ends for ids in expected]
    for answer in found:
        kept = [token for token in answer.ids if token != ends]
        assert answer.text == generator.tokeniser.decode(kept)


def test_the_end_stops_an_answer_and_later_tokens_are_cut(make):
    generator = make(max_new_tokens=4)
    # ids after the end, as padding in a batch gives them
    end = generator.tokeniser.eos_id
    answer = generator._answer([7, end, end, 9])
    assert answer.ids == (7, end)
    assert answer.finished
    assert not generator._answer([7, 8, 9, 10]).finished


def test_other_ends_of_the_model_stop_it_too(make):
    generator = make()
    first = greedy_by_hand(generator, PROMPTS[1])[0]
    generator.policy.model.generation_config.eos_token_id = [generator.tokeniser.eos_id, first]
    ((answer,),) = generator([PROMPTS[1]])
    assert answer.ids == (first,)
    assert answer.finished


def test_the_models_own_decoding_habits_play_no_part(make):
    generator = make()
    expected = [greedy_by_hand(generator, prompt) for prompt in PROMPTS]
    habits = generator.policy.model.generation_config
    habits.repetition_penalty = 5.0
    habits.no_repeat_ngram_size = 1
    assert [answer.ids for (answer,) in generator(PROMPTS)] == expected


def test_sampling_ignores_the_models_own_top_k(make):
    generator = make(sampling=Sampling(temperature=1.0))
    generator.policy.model.generation_config.top_k = 1
    (answers,) = generator([PROMPTS[0]], samples=8)
    assert len({answer.ids for answer in answers}) > 1


def test_sampling_repeats_with_its_seed_and_differs_with_another(make):
    runs = {}
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))
        generator = make(sampling=Sampling(temperature=1.0, seed=seed))
        rows = generator(PROMPTS, samples=2)
        assert [len(row) for row in rows] == [2] * len(PROMPTS)
        found = tuple(answer.ids for row in rows for answer in row)
        assert runs.setdefault(seed, found) == found
    assert runs[0] != runs[1]


def test_generation_leaves_random_state_and_mode_alone(make):
    generator = make(sampling=Sampling(temperature=1.0))
    generator.policy.train()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    generator(PROMPTS)
    assert torch.equal(torch.get_rng_state(), state)
    assert generator.policy.training


def test_a_narrow_nucleus_is_greedy(make):
    narrow = make(sampling=Sampling(temperature=1.0, top_p=1e-6))
    greedy = make()
    assert [row[0].ids for row in narrow(PROMPTS)] == [row[0].ids for row in greedy(PROMPTS)]


def test_several_greedy_samples_are_refused(make):
    with pytest.raises(ValueError, match="greedy"):
        make()(PROMPTS, samples=2)


def test_a_long_prompt_loses_its_oldest_part(make):
    generator = make(max_prompt=10)
    assert all(len(generator.encode(prompt)) <= 10 for prompt in PROMPTS)
    found = [answer.ids for (answer,) in generator(PROMPTS)]
    assert found == [greedy_by_hand(generator, prompt) for prompt in PROMPTS]
