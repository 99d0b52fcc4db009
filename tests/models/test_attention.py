"""Every layout against a plain transformers forward of each prompt and response by itself."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plot_exp.data.collate import collate
from plot_exp.data.packing import PADDED, Layout
from plot_exp.models import attention
from plot_exp.models.attention import ATTENTION, additive, block_mask, decoder_for
from plot_exp.models.dropout import set_dropout
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

from scoring_models import ARCHITECTURES, VOCABULARY, example, tiny_model, toy_examples

LAYOUTS = {
    "shared": Layout("shared"),
    "rows": Layout("packed", capacity=14),
    "joined": Layout("packed", joined=True),
    "joined_to_a_multiple": Layout("packed", joined=True, multiple=16),
}
LABELLED = [
    example([5, 6, 7], [[8, 9, 2], [10, 2], [11, 12, 2]], desirable=(True, False, True)),
    example([13], [[14, 15, 2]], desirable=(False,)),
    example([16, 17], [[18, 2]]),
]


def plain_sums(model: Any, items: list) -> torch.Tensor:
    """log-probabilities of each response from the model's own logits, one sequence at a time."""
    sums = []
    for item in items:
        for ids in item.response_ids:
            row = torch.tensor([[*item.prompt_ids, *ids]])
            logps = torch.log_softmax(model(input_ids=row).logits[0].float(), -1)
            before = range(len(item.prompt_ids) - 1, row.shape[1] - 1)
            sums.append(sum(logps[at, token] for at, token in zip(before, ids, strict=True)))
    return torch.stack(sums)


def gradients(model: Any, sums: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    (sums * torch.linspace(-1, 2, len(sums))).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("items", [toy_examples(), LABELLED], ids=["ranked", "labelled"])
def test_scores_and_gradients_are_those_of_each_response_alone(
    architecture: str, layout: Layout, items: list
) -> None:
    model = tiny_model(architecture)
    expected = plain_sums(model, items)
    expected_gradients = gradients(model, expected)

    found = Policy(model)(collate(items, 0, layout), Request()).sums()

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(model, found), expected_gradients, rtol=2e-4, atol=2e-4)


MODELS = {name: tiny_model(name) for name in ("llama", "qwen2", "gpt_neox")}
TOKENS = st.integers(3, VOCABULARY - 1)


@settings(max_examples=15)
@given(
    items=st.lists(
        st.builds(
            example,
            st.lists(TOKENS, min_size=1, max_size=12),
            st.lists(st.lists(TOKENS, min_size=1, max_size=8), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    architecture=st.sampled_from(list(MODELS)),
    layout=st.sampled_from(list(LAYOUTS.values())),
)
def test_random_lengths_and_numbers_of_responses(
    items: list, architecture: str, layout: Layout
) -> None:
    model = MODELS[architecture]
    with torch.no_grad():
        found = Policy(model)(collate(items, 0, layout), Request()).sums()
        torch.testing.assert_close(found, plain_sums(model, items), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_falls_on_the_same_tokens(architecture: str, layout: Layout) -> None:
    policy = Policy(tiny_model(architecture).double())
    set_dropout(policy, 0.2)
    policy.train()
    expected = policy(collate(toy_examples(), 0), Request(), dropout_seed=5).sums()
    expected_gradients = gradients(policy, expected)

    found = policy(collate(toy_examples(), 0, layout), Request(), dropout_seed=5).sums()

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(policy, found), expected_gradients, rtol=1e-4, atol=1e-4)
    plain = policy.eval()(collate(toy_examples(), 0, layout), Request(), dropout_seed=5).sums()
    assert (found - plain).abs().min() > 1e-3


def test_hidden_states_at_the_tokens_themselves() -> None:
    policy = Policy(tiny_model("qwen2"))
    request = Request(tokens=frozenset({"hidden"}))
    expected = policy(collate(toy_examples(), 0), request).tokens["hidden"]
    for layout in LAYOUTS.values():
        found = policy(collate(toy_examples(), 0, layout), request).tokens["hidden"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_checkpointed_layers_run_again_in_their_pieces() -> None:
    batch = collate(toy_examples(), 0, LAYOUTS["joined"])
    model = tiny_model("llama")
    policy = Policy(model).train()
    expected = gradients(model, policy(batch, Request()).sums())
    policy.checkpoint_activations()
    sums = policy(batch, Request()).sums()
    policy(collate(toy_examples()[:1], 0, LAYOUTS["joined"]), Request())
    torch.testing.assert_close(gradients(model, sums), expected)


@pytest.mark.slow
def test_flex_attention_sees_what_the_dense_mask_shows() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    draw = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 90, (6, 3), generator=draw).tolist()
    items = [example([5] * prompt, [[6] * one, [7] * other]) for prompt, one, other in sizes]
    visibility = collate(items, 0, Layout("packed", joined=True, multiple=128)).visibility
    assert visibility is not None
    mask, blocks = visibility.mask(), block_mask(visibility)
    query, key, value = torch.randn(3, 1, 2, mask.shape[-1], 16, generator=draw)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    found = flex_attention(query, key, value, block_mask=blocks)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    # The eager form asks for every pair; the kernel looks at the listed blocks alone.
    count = mask.shape[-1] // 128
    needed = mask[0, 0].view(count, 128, count, 128).any(3).any(1)
    listed = blocks.to_dense()[0, 0].bool()
    assert count > 4
    assert not (needed & ~listed).any()
    assert listed.sum() < count * (count + 1) / 2


def test_the_additive_mask_is_the_boolean_one() -> None:
    mask = torch.tensor([[True, False], [True, True]])
    scores = torch.softmax(additive(mask), dim=-1)
    assert scores.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_policy_and_reference_read_the_same_masks() -> None:
    model = tiny_model("llama")
    Policy(model)
    batch = collate(toy_examples(), 0, LAYOUTS["joined"])
    one, other = decoder_for(model, batch), decoder_for(model, batch)
    assert one.args[1] is other.args[1]
    assert decoder_for(model, collate(toy_examples(), 0, PADDED)) is model.get_decoder()


def test_the_attention_stays_out_of_what_is_saved(tmp_path: Any) -> None:
    model = tiny_model("llama")
    Policy(model)
    assert model.config._attn_implementation == ATTENTION
    model.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()


def test_generation_with_a_cache_is_as_before() -> None:
    model = tiny_model("llama").eval()
    ids = torch.tensor([[5, 6, 7], [0, 8, 9]])
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, attention_mask=mask, **settings)
    Policy(model)
    assert torch.equal(model.generate(ids, attention_mask=mask, **settings), expected)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_a_block_mask_goes_through_the_model(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn.attention.flex_attention import flex_attention
    from transformers.integrations import flex_attention as integration

    def eager(*inputs: Any, training: bool = False, **options: Any) -> Any:
        return flex_attention(*inputs, **options)

    monkeypatch.setattr(integration, "compile_friendly_flex_attention", eager)
    policy = Policy(tiny_model(architecture)).eval()
    with torch.no_grad():
        expected = policy(collate(toy_examples(), 0), Request()).sums()
        monkeypatch.setattr(attention, "_form", lambda *_: "flex")
        layout = Layout("packed", joined=True, multiple=128)
        found = policy(collate(toy_examples(), 0, layout), Request()).sums()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_block_mask_is_let_go_with_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout("packed", joined=True, multiple=attention.FLEX_BLOCK)
    batch = collate(toy_examples(), 0, layout)
    monkeypatch.setattr(attention, "_form", lambda *_: "flex")
    before = len(attention._inputs)
    kept = attention.attention_inputs(tiny_model("llama"), batch.visibility)
    assert len(attention._inputs) == before + 1
    del batch, kept
    gc.collect()
    assert len(attention._inputs) == before
