"""The small Qwen2-architecture model of `model=tiny`, its tokenizer and its base training.

The base is trained from scratch as a language model of the prompts with their chosen and their
rejected responses alike, so that before preference training it shows both.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from plot_exp.config.model import TinyConfig
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.order import epoch_order
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.files import make_readable, unwritable
from plot_exp.progress import Bar

SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
# Batches that are sorted by length together: enough to spare padding, few enough to stay random.
BATCHES_GROUPED = 16
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def base_directory(
    config: TinyConfig,
    examples: Sequence[PreferenceExample],
    max_length: int,
    cache_dir: Path,
    *,
    trained: bool,
    bar: Bar,
) -> Path:
    """The folder of the base model for this shape, recipe and data; made when it is missing.

    Args:
        examples: the training examples; nothing of the validation split is seen.
        trained: False leaves the weights random (`model.weights=random`).

    Returns:
        A `save_pretrained` folder, written whole or not at all.

    Raises:
        RunError: the disk cannot be written.
    """
    target = cache_dir / "tiny" / _fingerprint(config, examples, max_length, trained)

    def write(made: Path) -> None:
        tokenizer = train_tokenizer(config, examples)
        model = build_model(config, tokenizer)
        tokenizer = _as_loaded(tokenizer, model, made)
        if trained:
            train_base(model, tokenizer, examples, config, max_length, bar)
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)

    return folder_made_once(target, write)


def folder_made_once(target: Path, write: Callable[[Path], None]) -> Path:
    """A model's folder, which `write` fills where it is missing; whole or not at all.

    Raises:
        RunError: the disk cannot be written.
    """
    if (target / "config.json").is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unfinished-"))
        try:
            write(made)
            _take_place(made, target)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise unwritable(target, error) from error
    return target


def _as_loaded(tokenizer: Any, model: Any, folder: Path) -> Any:
    """The tokenizer as everybody gets it from the folder.

    Transformers loads it as a Qwen2 tokenizer, which splits words by rules of its own; the base
    has to be trained on the same ids.
    """
    from transformers import AutoTokenizer

    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _take_place(made: Path, target: Path) -> None:
    make_readable(made)
    try:
        made.rename(target)
    except OSError:
        # Another run finished the same base first; its folder is as good.
        if not (target / "config.json").is_file():
            raise


def _fingerprint(
    config: TinyConfig, examples: Sequence[PreferenceExample], max_length: int, trained: bool
) -> str:
    made_of = hashlib.sha256()
    facts = [
        config.model_dump(mode="json"),
        max_length,
        trained,
        torch.__version__,
        transformers.__version__,  # decides how the tokenizer splits words
        CHAT_TEMPLATE,
        SPECIAL_TOKENS,
    ]
    made_of.update(json.dumps(facts, sort_keys=True).encode())
    for example in examples:
        turns = [(message.role, message.content) for message in example.prompt]
        made_of.update(json.dumps([turns, example.responses]).encode())
    return made_of.hexdigest()[:24]


def _texts(examples: Iterable[PreferenceExample]) -> Iterator[str]:
    for example in examples:
        for message in example.prompt:
            yield message.content
        yield from example.responses


def train_tokenizer(config: TinyConfig, examples: Sequence[PreferenceExample]) -> Any:
    """A byte-level BPE of the training texts; single digits, so that numbers have parts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(examples), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|pad|>",  # never used; without it Qwen2's own would be added as a new id
        additional_special_tokens=SPECIAL_TOKENS[2:],
        chat_template=CHAT_TEMPLATE,
    )


def tiny_shape(config: TinyConfig) -> Any:
    """transformers' configuration of the configured shape."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=4 * config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
    )


def build_model(config: TinyConfig, tokenizer: Any) -> Any:
    """A Qwen2 causal language model of the configured shape with seeded random weights."""
    from transformers import Qwen2ForCausalLM

    shape = tiny_shape(config)
    shape.pad_token_id = tokenizer.pad_token_id
    shape.eos_token_id = tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.base_seed)
        return Qwen2ForCausalLM(shape)


def train_base(
    model: Any,
    tokenizer: Any,
    examples: Sequence[PreferenceExample],
    config: TinyConfig,
    max_length: int,
    bar: Bar,
) -> None:
    """Language modelling of prompt and response, one row a response.

    A prompt token counts `base_prompt_weight` of a response token: what is trained afterwards is
    the answering.
    """
    rows = _rows(examples, ChatTokeniser(tokenizer), max_length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.base_lr, weight_decay=0.01)
    steps = base_steps(config, len(rows))
    # The schedule needs three steps to rise and fall in.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.base_lr, total_steps=max(steps, 3), pct_start=0.1
    )
    model.train()
    batches = _base_batches(rows, config)
    for _ in bar(range(steps), "training the base model (once; it is kept in the cache)"):
        input_ids, weights = _padded(next(batches), config, tokenizer.pad_token_id)
        logits = model(input_ids=input_ids, attention_mask=(weights > 0).long()).logits
        losses = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none"
        )
        counted = weights[:, 1:].flatten()
        loss = (losses * counted).sum() / counted.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def base_steps(config: TinyConfig, rows: int) -> int:
    """Optimizer steps of the base: `base_steps`, or fewer where the texts are few."""
    passes = math.ceil(config.base_epochs * rows / config.base_batch_size)
    return min(config.base_steps, max(1, passes))


Row = tuple[tuple[int, ...], tuple[int, ...]]


def _rows(
    examples: Sequence[PreferenceExample], tokeniser: ChatTokeniser, max_length: int
) -> list[Row]:
    """(prompt, response) of every response, a long prompt cut from the left."""
    rows = []
    for example in examples:
        prompt = tokeniser.prompt_ids(example.prompt)
        for response in tokeniser.response_ids(example.responses):
            kept = response[-max_length:]
            room = max_length - len(kept)
            rows.append((prompt[-room:] if room else (), kept))
    return rows


def _base_batches(rows: Sequence[Row], config: TinyConfig) -> Iterator[list[Row]]:
    """Seeded batches without end; rows of like length together, which spares padding."""
    size = config.base_batch_size
    for epoch in itertools.count():
        order = [rows[place] for place in epoch_order(len(rows), config.base_seed, epoch)]
        batches = []
        for start in range(0, len(order), BATCHES_GROUPED * size):
            group = sorted(order[start : start + BATCHES_GROUPED * size], key=_length)
            batches += [group[at : at + size] for at in range(0, len(group), size)]
        for place in epoch_order(len(batches), config.base_seed + 1, epoch):
            yield batches[place]


def _length(row: Row) -> int:
    return len(row[0]) + len(row[1])


def _padded(batch: Sequence[Row], config: TinyConfig, pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and loss weights, both [rows, T]; the weight of padding is zero."""
    width = max(_length(row) for row in batch)
    input_ids = torch.full((len(batch), width), pad_id)
    weights = torch.zeros(len(batch), width)
    for place, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        input_ids[place, :end] = torch.tensor(prompt + response)
        weights[place, : len(prompt)] = config.base_prompt_weight
        weights[place, len(prompt) : end] = 1.0
    return input_ids, weights
