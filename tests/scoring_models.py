"""Small random models of several architectures and a batch for them, for tests of scoring."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from plot_exp.data.collate import Batch, collate_padded
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.data.tokenise import TokenisedExample

VOCABULARY = 61
ARCHITECTURES = ["qwen2", "llama", "gpt_neox", "gemma2"]

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def tiny_model(architecture: str, *, attention_dropout: float = 0.0, seed: int = 0) -> Any:
    """A seeded random model; weights are spread out so that logits differ clearly."""
    torch.manual_seed(seed)
    keys = {"num_key_value_heads": 1, "attention_dropout": attention_dropout}
    if architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**_SHAPE, **keys, tie_word_embeddings=True))
    elif architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**_SHAPE, **keys))
    elif architecture == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**_SHAPE))
    else:
        config = Gemma2Config(**_SHAPE, **keys, head_dim=8, final_logit_softcapping=5.0)
        model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    return model


def example(
    prompt: list[int],
    responses: list[list[int]],
    *,
    scores: tuple[float, ...] | None = None,
    desirable: tuple[bool, ...] | None = None,
    category: str = "one",
    dataset: str = "toy",
) -> TokenisedExample:
    """A tokenised example whose texts do not matter."""
    source = PreferenceExample(
        prompt=(Message("user", "?"),),
        responses=tuple(f"answer {place}" for place in range(len(responses))),
        category=category,
        dataset=dataset,
        origin=Origin("toy", 0),
        scores=scores,
        desirable=desirable,
    )
    return TokenisedExample(source, tuple(prompt), tuple(tuple(ids) for ids in responses))


def toy_examples() -> list[TokenisedExample]:
    """Two pairs and a ranking of three, of different lengths."""
    return [
        example([5, 6, 7], [[8, 9, 2], [10, 2]]),
        example([11], [[12, 2], [13, 14, 15, 2]]),
        example([16, 17, 18, 19], [[20, 2], [21, 2], [22, 23, 24, 25, 2]]),
    ]


def toy_batch() -> tuple[Batch, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """A padded batch, and its rows as (prompt, response)."""
    examples = toy_examples()
    rows = [(item.prompt_ids, ids) for item in examples for ids in item.response_ids]
    return collate_padded(examples, pad_id=0), rows
