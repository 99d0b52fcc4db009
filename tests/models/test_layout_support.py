"""Models that cannot take rows of several sequences are recognised, and told apart from others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
)

from plot_exp.config.schema import TrainerConfig
from plot_exp.data.packing import PADDED, Layout
from plot_exp.errors import UserError
from plot_exp.models.layout_support import failed_trial, obstacle
from plot_exp.models.policy import Policy
from plot_exp.workflows.layouts import choose_layout

from scoring_models import ARCHITECTURES, VOCABULARY, tiny_model

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2}
LAYOUTS = [Layout("shared"), Layout("packed"), Layout("packed", joined=True)]


def mistral(window: int | None) -> Any:
    return MistralForCausalLM(
        MistralConfig(
            **SHAPE,
            intermediate_size=32,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=window,
        )
    )


def bloom() -> Any:
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=2))


def mamba() -> Any:
    return MambaForCausalLM(MambaConfig(**SHAPE, state_size=4))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_decoders_take_every_layout(architecture: str, layout: Layout) -> None:
    model = tiny_model(architecture)
    Policy(model)
    assert obstacle(model, 30) is None
    assert failed_trial(model, layout) is None


def test_learned_positions_are_no_obstacle() -> None:
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    Policy(model)
    assert [failed_trial(model, layout) for layout in LAYOUTS] == [None] * 3


def test_a_window_counts_where_an_example_reaches_beyond_it() -> None:
    assert obstacle(mistral(20), 20) is None
    assert obstacle(mistral(None), 1000) is None
    assert "sees 20 tokens at a time, and the longest example has 21" in str(
        obstacle(mistral(20), 21)
    )
    assert "sees" in str(obstacle(tiny_model("gemma2"), 10_000))


def test_state_and_alibi_are_read_from_the_configuration() -> None:
    assert "carry a state" in str(obstacle(mamba(), 5))
    assert "ALiBi" in str(obstacle(bloom(), 5))
    falcon = FalconForCausalLM(
        FalconConfig(**SHAPE, num_attention_heads=2, alibi=True, new_decoder_architecture=False)
    )
    assert "ALiBi" in str(obstacle(falcon, 5))

    class Hybrid:
        config = Qwen3NextConfig(**SHAPE)

    assert "linear_attention" in str(obstacle(Hybrid(), 5))


@pytest.mark.parametrize("make", [bloom, mamba])
def test_the_trial_finds_them_without_their_configuration(make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    for layout in LAYOUTS:
        assert failed_trial(model, layout) is not None


def test_the_trial_finds_a_model_that_disregards_positions() -> None:
    model = tiny_model("llama")
    Policy(model)
    decoder = model.get_decoder()
    plain = decoder.forward

    def forward(*args: Any, position_ids: Any = None, **inputs: Any) -> Any:
        return plain(*args, **inputs)

    decoder.forward = forward
    assert "gives other hidden states in shared" in str(failed_trial(model, LAYOUTS[0]))


def settings(layout: str) -> TrainerConfig:
    return TrainerConfig(layout=layout)


def test_auto_packs_what_it_can_and_pads_the_rest_saying_so(capsys: Any) -> None:
    llama, windowed = Policy(tiny_model("llama")), Policy(mistral(9))
    assert choose_layout(settings("auto"), [llama], 30) == Layout("packed", joined=True)
    assert choose_layout(settings("auto"), [windowed], 9).name == "packed"
    assert not capsys.readouterr().out
    assert choose_layout(settings("auto"), [llama, windowed], 10) == PADDED
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "padded rows, since MistralForCausalLM sees 9 tokens at a time" in said
    assert choose_layout(settings("padded"), [llama], 30) == PADDED


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_a_layout_that_is_asked_for_by_name_is_had_or_refused(layout: str) -> None:
    assert choose_layout(settings(layout), [Policy(tiny_model("qwen2"))], 9).name == layout
    with pytest.raises(UserError, match=f"trainer.layout={layout}: MistralForCausalLM sees 9"):
        choose_layout(settings(layout), [Policy(mistral(9))], 10)


def test_a_model_with_attention_of_its_own_gets_rows() -> None:
    policy = Policy(tiny_model("llama"))
    policy.model.config._attn_implementation = "eager"
    found = choose_layout(TrainerConfig(layout="auto", row_capacity=100), [policy], 30)
    assert found == Layout("packed", capacity=100)


def test_a_window_along_the_row_is_an_obstacle_at_any_length() -> None:
    # GPT-Neo's local layers count places of the row, which a second response begins late in.
    config = GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        max_position_embeddings=64,
    )
    assert "local" in str(obstacle(GPTNeoForCausalLM(config), 5))
    config.attention_layers = ["global", "global"]
    assert obstacle(GPTNeoForCausalLM(config), 50) is None
