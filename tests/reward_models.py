"""Tiny saved reward models in the layouts of published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from conftest import qwen_tokenizer, trained_core
from plot_exp.models.reward_model import GPTNeoXRewardConfig, GPTNeoXRewardModel


def oasst_tokenizer() -> Any:
    """Pythia's: one token for end and beginning, another for padding, three for roles."""
    return PreTrainedTokenizerFast(
        tokenizer_object=trained_core(["<|endoftext|>", "<|padding|>"]),
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        pad_token="<|padding|>",
        additional_special_tokens=["<|prompter|>", "<|assistant|>", "<|system|>"],
    )


def save_oasst(folder: Path, pooling: str = "last") -> GPTNeoXRewardModel:
    """The layout of OpenAssistant/oasst-rm-2-pythia-6.9b-epoch-1."""
    tokenizer = oasst_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = GPTNeoXRewardModel(
            GPTNeoXRewardConfig(
                vocab_size=416,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=128,
                initializer_range=0.3,
                eos_token_id=tokenizer.eos_token_id,
                pooling=pooling,
            )
        ).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def save_qwen(folder: Path, labels: int = 1, **tokens: Any) -> Qwen2ForSequenceClassification:
    """A decoder with transformers' own classification head."""
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = Qwen2ForSequenceClassification(
            Qwen2Config(
                vocab_size=416,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=128,
                initializer_range=0.3,
                num_labels=labels,
                **({"pad_token_id": None, "eos_token_id": tokenizer.eos_token_id} | tokens),
            )
        ).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
