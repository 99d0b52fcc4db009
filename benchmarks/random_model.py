"""A model's folder without weights, a tokenizer, and pairs of a given length, all made here."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from plot_exp.config.model import TinyConfig
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.files import write_text
from plot_exp.models.tiny import train_tokenizer

WORDS = ("apple", "basket", "answer", "seven", "country", "morning", "idea", "map", "table")


def write_start(
    folder: Path, shape: dict[str, Any], length: int, pairs: int, architecture: str = "qwen2"
) -> None:
    """A configuration, a tokenizer, and pairs that truncation cuts to the length."""
    draw = random.Random(0)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words))

    message = (Message("user", text(200)),)
    learned = [
        PreferenceExample(message, (text(20),), "none", "none", Origin("", row))
        for row in range(20)
    ]
    tokenizer = train_tokenizer(TinyConfig(vocab_size=400), learned)
    tokenizer.save_pretrained(folder)
    name = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[architecture]
    AutoConfig.for_model(
        architecture,
        **shape,
        architectures=[name],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    ).save_pretrained(folder)
    rows = [
        # The oldest part of the prompt is cut.
        {"prompt": text(2 * length), "chosen": text(length // 6), "rejected": text(length // 6)}
        for _ in range(pairs)
    ]
    write_text(folder / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
