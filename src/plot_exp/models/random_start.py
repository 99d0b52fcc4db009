"""The start of a preset with random weights: its shape and a tokenizer, without any download."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import transformers

from plot_exp.config.model import ModelConfig, TinyConfig
from plot_exp.data.demo import generate
from plot_exp.models.shape import shape_of
from plot_exp.models.tiny import (
    CHAT_TEMPLATE,
    SPECIAL_TOKENS,
    folder_made_once,
    train_tokenizer,
)

# Of the tokenizer: the embedding keeps the rows of the shape, most of them without a token.
LARGEST_VOCABULARY = 4096
EXAMPLES = 280


def random_directory(config: ModelConfig, cache_dir: Path) -> Path:
    """A folder with the configuration of `config.shape` and a tokenizer, made when it is missing.

    The tokenizer is a byte-level BPE of the embedded demo texts, so that every text can be
    encoded. There are no weights in the folder: they are drawn where it is loaded with
    `model.weights=random`.

    Raises:
        UserError: the shape makes no sense.
        RunError: the disk cannot be written.
    """
    shape = shape_of(config)
    facts = [shape.to_dict(), transformers.__version__, CHAT_TEMPLATE, SPECIAL_TOKENS, EXAMPLES]
    name = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return folder_made_once(cache_dir / "random" / name[:24], lambda made: _write(shape, made))


def _write(shape: Any, folder: Path) -> None:
    size = min(LARGEST_VOCABULARY, shape.vocab_size)
    tokenizer = train_tokenizer(TinyConfig(vocab_size=size), generate(EXAMPLES, 0).train)
    shape.bos_token_id, shape.eos_token_id = None, tokenizer.eos_token_id
    shape.pad_token_id = tokenizer.pad_token_id
    shape.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
