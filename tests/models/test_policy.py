"""The policy repeats its model's own logits, or says that it cannot."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
)

from plot_exp.data.collate import collate_padded
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.errors import UserError
from plot_exp.models.dropout import set_dropout
from plot_exp.models.policy import (
    Policy,
    freeze,
    frozen_copy,
    input_embedding,
    output_embedding,
)
from plot_exp.ops.scores import Request

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
GPT2 = {
    "vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64,
    "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OPT = {key: value for key, value in SMALL.items() if key != "intermediate_size"} | {
    "ffn_dim": 64,
    "word_embed_proj_dim": 32,
    "init_std": 0.3,
}


def config_of(name, dropout=0.0):
    attention = {"attention_dropout": dropout}
    return {
        "qwen2": lambda: Qwen2Config(**GROUPED, **attention),
        "llama": lambda: LlamaConfig(**GROUPED, **attention),
        "gpt_neox": lambda: GPTNeoXConfig(**SMALL, **attention, hidden_dropout=dropout),
        "gemma2": lambda: Gemma2Config(
            **GROUPED, **attention, head_dim=16, final_logit_softcapping=3.0
        ),
        "cohere": lambda: CohereConfig(**GROUPED, **attention, logit_scale=0.0625),
        "granite": lambda: GraniteConfig(**GROUPED, **attention, logits_scaling=8.0),
        "gpt2": lambda: GPT2Config(
            **GPT2, resid_pdrop=dropout, attn_pdrop=dropout, embd_pdrop=dropout
        ),
        "opt": lambda: OPTConfig(**OPT, **attention, dropout=dropout, layerdrop=dropout),
        "phi": lambda: PhiConfig(**SMALL, **attention, resid_pdrop=dropout, embd_pdrop=dropout),
    }[name]()


def random_model(name, dropout=0.0):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(name, dropout)).eval()


ARCHITECTURES = ["qwen2", "llama", "gpt_neox", "gemma2", "cohere", "granite", "gpt2", "opt", "phi"]


@pytest.fixture
def batch(example):
    items = [
        TokenisedExample(example("a", ["x", "y"]), (5, 6, 7, 8), ((9, 10, 2), (11, 2))),
        TokenisedExample(example("b", ["x", "y"]), (12,), ((13, 2), (14, 15, 16, 17, 2))),
    ]
    return collate_padded(items, 0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_are_the_models_own_log_probabilities(name, batch):
    model = random_model(name)
    scores = Policy(model)(batch, Request())
    expected = []
    for row, source in ((0, 0), (1, 0), (2, 1), (3, 1)):
        item = batch.sources[source]
        response = item.response_ids[row % 2]
        ids = torch.tensor([item.prompt_ids + response])
        logps = model(input_ids=ids).logits[0].detach().log_softmax(-1)
        start = len(item.prompt_ids) - 1
        expected += [float(logps[start + place, token]) for place, token in enumerate(response)]
    torch.testing.assert_close(scores.token_logps, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def scaled(logits):
    return logits * 0.9


def biased(logits):
    return logits + logits.abs().max() * torch.linspace(0, 0.1, logits.shape[-1])


def capped(logits):
    return 2 * torch.tanh(logits / 2)


def cut(logits):
    return logits[..., :-1]


@pytest.mark.parametrize(
    ("change", "spread"),
    # A soft cap leaves the small logits of a fresh model as they are.
    [(scaled, 0.3), (scaled, 0.02), (biased, 0.3), (biased, 0.02), (capped, 0.3), (cut, 0.02)],
)
def test_an_unknown_change_of_the_logits_is_refused(change, spread):
    torch.manual_seed(0)
    config = LlamaConfig(**GROUPED | {"initializer_range": spread})
    model = AutoModelForCausalLM.from_config(config)
    Policy(model)
    forward = model.forward

    def changed(**inputs):
        output = forward(**inputs)
        output.logits = change(output.logits)
        return output

    model.forward = changed
    with pytest.raises(UserError, match=r"LlamaForCausalLM.*ops/head\.py"):
        Policy(model)


def test_the_check_leaves_the_training_mode_as_it_was():
    model = random_model("llama").train()
    assert Policy(model).model.training


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt_neox", "gemma2", "gpt2", "opt", "phi"])
def test_without_dropout_training_mode_is_deterministic(name):
    model = random_model(name, dropout=0.5).train()
    ids = torch.arange(8)[None]
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    set_dropout(model, 0.0)
    found = [model(input_ids=ids).logits for _ in range(4)]
    assert all(torch.equal(found[0], other) for other in found)
    torch.testing.assert_close(found[0], model.eval()(input_ids=ids).logits)


def test_a_frozen_copy_stays_when_the_policy_moves(batch):
    policy = Policy(random_model("qwen2"))
    before = policy(batch, Request()).token_logps.detach()
    reference = frozen_copy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert torch.equal(reference(batch, Request()).token_logps, before)
    assert not torch.equal(policy(batch, Request()).token_logps, before)
    assert not reference.training
    assert not reference.trainable()
    assert len(policy.trainable()) == len(list(policy.parameters()))


def test_freezing_takes_the_gradients():
    assert not freeze(Policy(random_model("llama"))).trainable()


def test_embeddings_have_a_row_for_every_output(qwen_dir):
    model = AutoModelForCausalLM.from_pretrained(qwen_dir)
    policy = Policy(model)
    assert policy.vocab_size == 416
    assert torch.equal(input_embedding(policy), model.get_input_embeddings().weight)
    assert torch.equal(output_embedding(policy), model.get_output_embeddings().weight)


def test_an_input_embedding_with_fewer_rows_is_padded_with_zeros():
    model = random_model("llama")
    policy = Policy(model)
    model.set_input_embeddings(torch.nn.Embedding(60, 32))
    found = input_embedding(policy)
    assert found.shape == (64, 32)
    assert found[60:].abs().max() == 0
