"""Fixtures that many rooms share: tiny saved models, a few examples, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from plot_exp.data.examples import Message, Origin, PreferenceExample

# A check of a change must not depend on luck or on how busy the machine is; at a desk new cases
# are drawn each time.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Small tensors gain nothing from threads, and several test processes may share the machine.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

SENTENCES = [
    "Please tell me how many apples there are in the basket on the table.",
    "I cannot help with that, but here is a safer idea for the afternoon.",
    "The answer is 42, because seven times six is forty-two.",
    "What is the capital of that country? I would look it up on a map.",
    "Human: hello there. Assistant: good morning to you as well!",
]
QWEN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if loop.index0 > 0 and messages[loop.index0 - 1]['role'] == message['role'] %}"
    "{{ raise_exception('roles must alternate') }}"
    "{% endif %}"
    "{{ '<|turn|>' + message['role'] + '\n' + (message['content'] | trim) + '</s>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)


def trained_core(special: Sequence[str]) -> Tokenizer:
    """A byte-level BPE tokenizer of the sentences."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES * 4, trainer)
    return core


def qwen_tokenizer() -> Any:
    """Without BOS, with turns in special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=trained_core(
            ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
        ),
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=QWEN_TEMPLATE,
    )


def llama_tokenizer(*, adds_bos: bool = True, chat_template: str | None = LLAMA_TEMPLATE) -> Any:
    """With a BOS that the tokenizer adds by itself, and a template that may write it too."""
    core = trained_core(["<pad>", "<s>", "</s>", "<|turn|>"])
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|turn|>"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


SHAPE = {
    "vocab_size": 416,  # rows beyond the tokenizer's, as many published models have
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="session")
def make_llama_tokenizer() -> Callable[..., Any]:
    """`llama_tokenizer(adds_bos=..., chat_template=...)`."""
    return llama_tokenizer


@pytest.fixture(scope="session")
def qwen_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random Qwen2 model with its tokenizer; large weights, so that outputs differ."""
    folder = tmp_path_factory.mktemp("saved") / "qwen"
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                **SHAPE,
                initializer_range=0.3,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random Llama model with its tokenizer: BOS, untied embeddings, strict template."""
    folder = tmp_path_factory.mktemp("saved") / "llama"
    tokenizer = llama_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LlamaForCausalLM(
            LlamaConfig(
                **SHAPE,
                initializer_range=0.3,
                tie_word_embeddings=False,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["qwen_dir", "llama_dir"])
def saved_model(request: pytest.FixtureRequest) -> Path:
    """Each of the two architectures in turn."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


def make_example(
    prompt: str | Sequence[tuple[str, str]],
    responses: Sequence[str],
    row: int = 0,
    **facts: Any,
) -> PreferenceExample:
    """An example from plain strings."""
    turns = [("user", prompt)] if isinstance(prompt, str) else prompt
    messages = tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]
    facts = {"category": "help", "dataset": "toy", "origin": Origin("toy.jsonl", row)} | facts
    return PreferenceExample(messages, tuple(responses), **facts)


@pytest.fixture(scope="session")
def example() -> Callable[..., PreferenceExample]:
    """`example(prompt, responses, row=0, **facts)`."""
    return make_example


@pytest.fixture(scope="session")
def examples() -> list[PreferenceExample]:
    """Pairs, one of several turns, with three categories."""
    return [
        make_example("How many apples are there?", ["There are 7 apples.", "No idea"], 0),
        make_example("Say hello", ["hello there!", "The answer is 42, because."], 1),
        make_example(
            [("user", "hello"), ("assistant", "good morning"), ("user", "what is the answer?")],
            ["The answer is 42", "I cannot help with that"],
            2,
            category="reasoning",
        ),
        make_example("seven times six", ["forty-two", "a basket"], 3, category="mathematics"),
    ]


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_cli(args, cwd)` runs `python -m plot_exp` in a folder, offline and without W&B."""

    def run(
        args: Sequence[str], cwd: Path, timeout: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        source = Path(__file__).parents[1] / "src"
        return subprocess.run(
            [sys.executable, "-m", "plot_exp", *args],
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": str(source),
                "OMP_NUM_THREADS": "1",
                "WANDB_MODE": "offline",
                "HF_HUB_OFFLINE": "1",
                **environment,
            },
        )

    return run


@pytest.fixture(scope="session")
def quick_run(
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The directory of one finished `experiment=quick` run from the command line."""
    folder = tmp_path_factory.mktemp("runs")
    done = run_cli(
        ["experiment=quick", "logger=none", "hydra.run.dir=run", "trainer.progress=false"], folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"
