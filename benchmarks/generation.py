"""Tokens a second over GSM8K's prompts, against a plain batched `generate` on the same prompts.

    python benchmarks/generation.py [--model DIR_OR_ID] [--gsm8k FILE] [--prompts N] ...

Writes benchmarks/results/generation.md. Both sides are greedy, get the same ids, the same batch
size and the same limit, and take turns in one process; a side's time is the least of its rounds.
`generate` is given the prompts in the order of the file, as a loop over a dataset would, and once
more sorted by length. Only tokens up to and with the end token count. Without --model a small
random model is made, whose end token comes so often that answers differ in length as real ones do.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from plot_exp.config.model import ModelConfig
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.data.files import rows
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.environment import hardware
from plot_exp.files import write_text
from plot_exp.generators.base import Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy
from plot_exp.models.tiny import TinyConfig, build_model, train_tokenizer

INSTRUCTION = "\n\nSolve the problem step by step. End with a last line of the form `#### N`."
Ids = tuple[int, ...]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a directory or hub id; a small random model without it")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--gsm8k", default="test.jsonl", help="GSM8K's test file")
    parser.add_argument("--prompts", type=int, default=1319)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--mean-length", type=float, default=90.0, help="of random answers")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def opened(options: argparse.Namespace, questions: Sequence[str]) -> LocalGenerator:
    """The model with its tokenizer."""
    if options.model:
        config = ModelConfig(name=options.model, dtype=options.dtype)
        model, tokenizer = load_model(config), load_tokenizer(config)
    else:
        model, tokenizer = small(questions)
    policy = Policy(model.to(options.device)).eval()
    if not options.model:
        end_at_random(model, tokenizer.eos_token_id, options.mean_length)
    generator = LocalGenerator(policy, ChatTokeniser(tokenizer), options.batch_size)
    generator.name = options.model or "a random Qwen2 of 4 layers and 256 dimensions"
    return generator


def small(questions: Sequence[str]) -> tuple[Any, Any]:
    """A random model, with a tokenizer of the questions."""
    examples = [
        PreferenceExample((Message("user", text),), ("",), "", "", Origin("", place))
        for place, text in enumerate(questions)
    ]
    config = TinyConfig(vocab_size=2048, hidden_size=256, layers=4, heads=4)
    tokenizer = train_tokenizer(config, examples)
    return build_model(config, tokenizer), tokenizer


def end_at_random(model: Any, end: int, mean_length: float) -> None:
    """Lets answers end after `mean_length` tokens on average.

    Random weights never end an answer; a fixed pseudo-random number for each pair of position and
    last token decides in their place.
    """
    forward = model.forward

    @functools.wraps(forward)
    def ending(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        last, positions = kwargs["input_ids"][:, -1], kwargs["position_ids"][:, -1]
        drawn = (last * 2654435761 + positions * 40503) % 65536
        found.logits[:, -1, end] = torch.where(drawn < 65536 / mean_length, 1e4, -1e4)
        return found

    model.forward = ending


def plain(generator: LocalGenerator, prompts: Sequence[Ids], limit: int) -> list[Ids]:
    """Batches in the order given, padded on the left, through transformers' own `generate`."""
    pad_id = generator.tokeniser.tokenizer.pad_token_id
    model, size = generator.policy.model, generator.batch_size
    answers: list[Ids] = []
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        width = max(map(len, batch))
        ids = torch.tensor([[pad_id] * (width - len(one)) + list(one) for one in batch])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in batch])
        with torch.no_grad():
            found = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=sorted(generator.end_ids),
                pad_token_id=pad_id,
            )
        answers += [cut(row, generator.end_ids) for row in found[:, width:].tolist()]
    return answers


def cut(row: list[int], ends: frozenset[int]) -> Ids:
    """Up to and with the end token."""
    length = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:length])


def by_length(generator: LocalGenerator, prompts: Sequence[Ids], limit: int) -> list[Ids]:
    """`plain` with the longest prompts first."""
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    found = plain(generator, [prompts[place] for place in order], limit)
    answers: list[Ids] = [()] * len(prompts)
    for place, answer in zip(order, found, strict=True):
        answers[place] = answer
    return answers


def ours(generator: LocalGenerator, prompts: Sequence[Ids], limit: int) -> list[Ids]:
    """This project's loop."""
    return [row[0].ids for row in generator(prompts, Sampling(max_new_tokens=limit))]


SIDES: dict[str, Callable[[LocalGenerator, Sequence[Ids], int], list[Ids]]] = {
    "`generate`, order of the file": plain,
    "`generate`, sorted by length": by_length,
    "this project": ours,
}


def main() -> None:
    """Measures every side and writes the table."""
    options = arguments()
    questions = [row.values["question"] for row in rows(Path(options.gsm8k))][: options.prompts]
    generator = opened(options, questions)
    prompts = [generator.encode([Message("user", text + INSTRUCTION)]) for text in questions]
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    answers: dict[str, list[Ids]] = {}
    for side in SIDES.values():
        side(generator, prompts[: options.batch_size], 8)  # warm
    for _ in range(options.rounds):
        for name, side in SIDES.items():
            started = time.perf_counter()
            answers[name] = side(generator, prompts, options.max_new_tokens)
            if options.device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    write(options, generator, prompts, seconds, answers)


def write(
    options: argparse.Namespace,
    generator: LocalGenerator,
    prompts: Sequence[Ids],
    seconds: dict[str, list[float]],
    answers: dict[str, list[Ids]],
) -> None:
    """The table, and how far the sides agree."""
    first = next(iter(SIDES))
    rates = {name: sum(map(len, answers[name])) / min(seconds[name]) for name in SIDES}
    lengths = [len(one) for one in answers[first]]
    same = {
        name: sum(a == b for a, b in zip(answers[name], answers[first], strict=True))
        for name in SIDES
    }
    table = [
        f"| {name} | {rates[name]:.0f} | {rates[name] / rates[first]:.2f} | "
        f"{same[name]} of {len(prompts)} |"
        for name in SIDES
    ]
    where = hardware()
    device = where["gpus"][0]["name"] if options.device == "cuda" else where["processor"]
    text = "\n".join(
        [
            "# Generation: tokens a second over GSM8K's prompts",
            "",
            "Written by `python benchmarks/generation.py`; see there for what is measured. "
            f"{len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} "
            f"tokens, batches of {options.batch_size}, at most {options.max_new_tokens} new "
            f"tokens (mean {statistics.mean(lengths):.0f}, longest {max(lengths)}), "
            f"{generator.name}, {options.dtype}; least of {options.rounds} rounds. {device}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}.",
            "",
            "| | tokens/s | against the first | answers equal to the first's |",
            "|---|--:|--:|--:|",
            *table,
            "",
        ]
    )
    write_text(Path(__file__).parent / "results" / "generation.md", text)
    print(text)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
