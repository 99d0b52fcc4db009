"""Batched completions are those that each prompt gets alone."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import RunError, UserError
from plot_exp.generators.base import Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.policy import Policy

TEXTS = (
    "hi",
    "how many apples are there in the basket on the table",
    "say 42",
    "",
    "what is the capital of that country? I would look it up",
    "forty-two",
    "seven times six is a number",
)
PROMPTS = [(Message("user", text),) for text in TEXTS]
SHAPE = {"vocab_size": 416, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def other_model(name):
    common = SHAPE | {"intermediate_size": 64, "initializer_range": 0.3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        if name == "gpt_neox":
            return GPTNeoXForCausalLM(GPTNeoXConfig(**common, max_position_embeddings=512))
        # Keys and values beyond the window are forgotten: a cache of another kind.
        return MistralForCausalLM(MistralConfig(**common, num_key_value_heads=2, sliding_window=12))


@pytest.fixture(params=["llama", "qwen", "gpt_neox", "sliding"])
def make(request, qwen_dir, llama_dir):
    folder = llama_dir if request.param == "llama" else qwen_dir
    if request.param in ("llama", "qwen"):
        model = AutoModelForCausalLM.from_pretrained(folder)
    else:
        model = other_model(request.param)
        model.generation_config.eos_token_id = None
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(folder))
    model.eval()
    # Some answers end early and others do not.
    with torch.no_grad():
        model.get_output_embeddings().weight[tokeniser.eos_id] *= 2.5

    def generator(**changes):
        return LocalGenerator(Policy(model), tokeniser, **({"batch_size": 3} | changes))

    return generator


@pytest.fixture
def qwen(qwen_dir):
    model = AutoModelForCausalLM.from_pretrained(qwen_dir).eval()
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(qwen_dir))

    def generator(**changes):
        return LocalGenerator(Policy(model), tokeniser, **({"batch_size": 3} | changes))

    return generator


def greedy_by_hand(generator, prompt, count):
    """Token by token, without cache, padding or generate()."""
    ids = list(generator.encode(prompt, count))
    start = len(ids)
    while len(ids) - start < count:
        with torch.no_grad():
            logits = generator.policy.model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == generator.tokeniser.eos_id:
            break
    return tuple(ids[start:])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_greedy_answers_are_those_of_each_prompt_alone(make, batch_size):
    generator = make(batch_size=batch_size)
    found = [row[0] for row in generator(PROMPTS, Sampling(max_new_tokens=24))]
    expected = [greedy_by_hand(generator, prompt, 24) for prompt in PROMPTS]
    assert [answer.ids for answer in found] == expected
    end = generator.tokeniser.eos_id
    assert len({len(ids) for ids in expected}) > 1, "no row left its batch before another"
    assert [answer.finished for answer in found] == [ids[-1] == end for ids in expected]
    for answer in found:
        kept = [token for token in answer.ids if token != end]
        assert answer.text == generator.tokeniser.decode(kept)


def test_samples_do_not_depend_on_what_stands_beside_them(make):
    sampling = Sampling(temperature=1.0, top_p=0.95, seed=5, max_new_tokens=16)
    alone = [make(batch_size=1)([prompt], sampling, samples=2)[0] for prompt in PROMPTS]
    together = make(batch_size=5)(PROMPTS[::-1], sampling, samples=2)[::-1]
    assert [[one.ids for one in row] for row in together] == [
        [one.ids for one in row] for row in alone
    ]
    assert len({one.ids for row in alone for one in row}) > len(PROMPTS)
    other = make(batch_size=5)(PROMPTS, Sampling(temperature=1.0, seed=6, max_new_tokens=16))
    assert [row[0].ids for row in other] != [row[0].ids for row in alone]


def test_sampling_follows_the_models_probabilities(qwen):
    """First tokens of many samples against softmax, by the chi-square statistic."""
    generator = qwen(batch_size=200)
    sampling = Sampling(temperature=2.0, max_new_tokens=1)
    ((*found,),) = generator([PROMPTS[0]], sampling, samples=4000)
    counts = torch.zeros(416)
    for one in found:
        counts[one.ids[0]] += 1
    with torch.no_grad():
        ids = torch.tensor([generator.encode(PROMPTS[0])])
        expected = (generator.policy.model(ids).logits[0, -1] / 2).softmax(-1) * 4000
    likely = expected >= 5
    assert likely.sum() > 20
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum() / likely.sum()
    assert statistic < 1.6


def test_a_nucleus_holds_the_smallest_set_with_enough_probability(qwen):
    generator = qwen(batch_size=500)
    sampling = Sampling(temperature=1.0, top_p=0.6, max_new_tokens=1)
    ((*found,),) = generator([PROMPTS[1]], sampling, samples=3000)
    with torch.no_grad():
        ids = torch.tensor([generator.encode(PROMPTS[1])])
        ordered, order = generator.policy.model(ids).logits[0, -1].softmax(-1).sort(descending=True)
    size = int((ordered.cumsum(0) < 0.6).sum()) + 1
    assert {one.ids[0] for one in found} == set(order[:size].tolist())


def test_penalties_are_taken_from_what_was_generated(qwen):
    generator = qwen()
    sampling = Sampling(max_new_tokens=30, frequency_penalty=1.5, presence_penalty=2.0)
    found = [row[0].ids for row in generator(PROMPTS[:4], sampling)]
    for prompt, ids in zip(PROMPTS, found, strict=False):
        context = generator.encode(prompt)
        for place, token in enumerate(ids):
            with torch.no_grad():
                given = torch.tensor([[*context, *ids[:place]]])
                logits = generator.policy.model(given).logits[0, -1]
            for other in ids[:place]:
                logits[other] -= 1.5
            for other in set(ids[:place]):
                logits[other] -= 2.0
            assert token == int(logits.argmax())
    assert found != [row[0].ids for row in generator(PROMPTS[:4], Sampling(max_new_tokens=30))]


def test_a_stop_text_ends_a_completion_and_is_no_part_of_it(qwen):
    generator = qwen()
    plain = [row[0] for row in generator(PROMPTS, Sampling(max_new_tokens=30))]
    stop = plain[1].text[6:9]
    for one, whole in zip(
        generator(PROMPTS, Sampling(max_new_tokens=30, stop=("never there", stop))),
        plain,
        strict=True,
    ):
        place = whole.text.find(stop)
        assert one[0].text == (whole.text if place < 0 else whole.text[:place].strip())
        assert one[0].ids == whole.ids[: len(one[0].ids)]
        assert one[0].finish == (whole.finish if place < 0 else "stop")


def test_log_probabilities_are_those_of_the_model(qwen):
    generator = qwen()
    ((answer,),) = generator([PROMPTS[2]], Sampling(max_new_tokens=5, top_logprobs=3))
    ids = generator.encode(PROMPTS[2])
    assert answer.top_logprobs is not None
    assert len(answer.top_logprobs) == len(answer.ids)
    for place, found in enumerate(answer.top_logprobs):
        with torch.no_grad():
            context = torch.tensor([[*ids, *answer.ids[:place]]])
            logps = generator.policy.model(context).logits[0, -1].log_softmax(-1)
        assert max(found.values()) == pytest.approx(float(logps.max()), abs=1e-4)
        expected = logps.topk(3).values.tolist()
        assert all(min(abs(value - other) for other in expected) < 1e-4 for value in found.values())


def test_a_dialogue_has_one_bos_and_text_gets_its_own(llama_dir):
    model = AutoModelForCausalLM.from_pretrained(llama_dir)
    generator = LocalGenerator(
        Policy(model), ChatTokeniser(AutoTokenizer.from_pretrained(llama_dir))
    )
    bos = generator.tokeniser.bos_id
    ids = generator.encode("The answer is")
    for prompt in (PROMPTS[0], "The answer is", "<s>The answer is", ids):
        assert generator.encode(prompt).count(bos) == 1
    assert generator.encode("<s>The answer is") == ids
    found = generator([ids, "The answer is"], Sampling(max_new_tokens=6))
    assert found[0] == found[1]


def test_the_models_own_decoding_habits_play_no_part_but_its_ends_do(qwen):
    generator = qwen()
    plain = [row[0].ids for row in generator(PROMPTS, Sampling(max_new_tokens=12))]
    habits = generator.policy.model.generation_config
    habits.repetition_penalty, habits.top_k = 5.0, 1
    assert [row[0].ids for row in generator(PROMPTS, Sampling(max_new_tokens=12))] == plain
    habits.eos_token_id = [generator.tokeniser.eos_id, plain[1][0]]
    ((answer,),) = generator([PROMPTS[1]], Sampling(max_new_tokens=12))
    assert (answer.ids, answer.finish) == (plain[1][:1], "stop")


def test_running_out_of_memory_halves_the_batch_and_changes_nothing(qwen, monkeypatch):
    sampling = Sampling(max_new_tokens=20, temperature=0.7)
    expected = qwen(batch_size=7)(PROMPTS, sampling)
    generator = qwen(batch_size=7)
    real = generator.policy.model.forward
    calls = []

    def small_memory(input_ids, attention_mask, position_ids=None, logits_to_keep=0, **others):
        calls.append(len(input_ids))
        if len(input_ids) > 2 and len(calls) > 5:
            raise torch.OutOfMemoryError("no memory")
        return real(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **others
        )

    monkeypatch.setattr(generator.policy.model, "forward", small_memory)
    done = []
    found = generator(PROMPTS, sampling, each=lambda place, row: done.append(place))
    assert found == expected
    assert sorted(done) == list(range(len(PROMPTS)))
    assert generator.batch_size <= 2
    monkeypatch.setattr(
        generator.policy.model,
        "forward",
        lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError()),
    )
    with pytest.raises(RunError, match="single prompt"):
        generator(PROMPTS, sampling)


def test_a_long_prompt_loses_its_oldest_part_and_says_so(qwen):
    generator = qwen(max_prompt=10)
    found = [row[0] for row in generator(PROMPTS, Sampling(max_new_tokens=8))]
    assert [one.cut for one in found] == [len(qwen().encode(prompt)) > 10 for prompt in PROMPTS]
    assert any(one.cut for one in found)
    assert [one.ids for one in found] == [greedy_by_hand(generator, one, 8) for one in PROMPTS]
    context = generator.policy.model.config.max_position_embeddings
    assert len(qwen().encode("apples " * 1000, 100)) == context - 100
    with pytest.raises(UserError, match="no room"):
        generator(PROMPTS, Sampling(max_new_tokens=context))


def test_mode_and_random_state_stay(qwen):
    generator = qwen()
    generator.policy.train()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    generator(PROMPTS, Sampling(temperature=1.0, max_new_tokens=4))
    assert torch.equal(torch.get_rng_state(), state)
    assert generator.policy.training
    with pytest.raises(ValueError, match="greedy"):
        generator(PROMPTS, samples=2)
