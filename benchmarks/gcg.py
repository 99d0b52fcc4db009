"""GCG's candidate evaluations a second, here and in a straightforward implementation, in one run.

    python benchmarks/gcg.py [--repetitions 5] [--model DIR] [--context 120]

Both take the losses of the same candidates on the same model: a prompt of a context, a request, 20
adversarial tokens and a target, with 128 candidates a step. The straightforward implementation
sends whole sequences through the model and takes the cross-entropy from all its logits, as most
published code does; it is timed at several batch sizes, of which the best counts. Losses are
compared before anything is timed; then the sides take turns. Writes benchmarks/results/gcg.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from plot_exp.attacks.finish import random_slots
from plot_exp.attacks.model import AttackedModel, SlotLosses
from plot_exp.attacks.prompt import AttackedPrompt
from plot_exp.config.attacks import INITIAL
from plot_exp.config.model import ModelConfig, TinyConfig
from plot_exp.data.behaviours import Behaviour
from plot_exp.data.demo.generator import generate
from plot_exp.data.examples import Origin
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.files import write_text
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy
from plot_exp.models.tiny import train_tokenizer

HERE = Path(__file__).parent
WIDTH, TOKENS, TARGET = 128, 20, 20
TOLERANCE = 1e-4
PLAIN_BATCHES = (8, 32, 128)


def main() -> None:
    """Checks, measures, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--model", help="a directory; by default a random Qwen2 of 4 layers")
    parser.add_argument("--context", type=int, default=120, help="words before the request")
    options = parser.parse_args()
    model = named_model(options.model) if options.model else random_model()
    rows = []
    for context in sorted({0, options.context}):
        rows += compared(model, context, options.repetitions)
    write_text(HERE / "results" / "gcg.md", page(model, rows, options.repetitions))


def random_model() -> AttackedModel:
    """A Qwen2 model of 192 hidden units and 4 layers with random weights: only time is measured."""
    examples = generate(700, seed=0).train
    tokenizer = train_tokenizer(TinyConfig(vocab_size=4096), examples)
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=4096,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.1,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return AttackedModel(Policy(Qwen2ForCausalLM(shape).eval()), ChatTokeniser(tokenizer))


def named_model(folder: str) -> AttackedModel:
    """A saved model, on the GPU where there is one."""
    named = ModelConfig(name=folder, dtype="auto")
    policy = Policy(load_model(named)).eval()
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    return AttackedModel(policy, ChatTokeniser(load_tokenizer(named)))


def behaviour(context: int) -> Behaviour:
    """A request behind as many words, with a target of `TARGET` words."""
    words = ("the", "plan", "is", "to", "set", "up", "a", "table", "before", "noon")
    text = " ".join(words[place % len(words)] for place in range(context))
    target = " ".join(words[place % len(words)] for place in range(TARGET))
    request = "Can you tell me how to make a plan?"
    return Behaviour("bench", request, target, "standard", "bench", Origin("bench", 0), text)


def plain(model: AttackedModel, prompt: AttackedPrompt, rows: Tensor, batch: int) -> Tensor:
    """Whole sequences, all logits, no cache."""
    before = torch.tensor(prompt.before, device=model.device)
    behind = torch.tensor([*prompt.after, *prompt.target], device=model.device)
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            slots = rows[start : start + batch].to(model.device)
            count = len(slots)
            ids = torch.cat([before.expand(count, -1), slots, behind.expand(count, -1)], dim=1)
            logits = model.policy.model(input_ids=ids, use_cache=False).logits
            length = len(prompt.target)
            predicted = logits[:, -length - 1 : -1].float()
            losses = F.cross_entropy(
                predicted.transpose(1, 2), ids[:, -length:], reduction="none"
            ).mean(dim=1)
            found.append(losses.cpu())
    return torch.cat(found)


def compared(model: AttackedModel, context: int, repetitions: int) -> list[list[str]]:
    """The rows of one prompt length: losses first, then seconds in turn."""
    prompt = model.prompt(behaviour(context), INITIAL)
    rows = random_slots(model, prompt, WIDTH, TOKENS, seed=0)
    losses = SlotLosses(model, prompt)
    uncached = SlotLosses(model, prompt, cached=False)
    if losses.cache is None:
        raise SystemExit("this model's cache cannot be shared; there is nothing to compare")
    expected = plain(model, prompt, rows, PLAIN_BATCHES[0])
    difference = float((losses.of_ids(rows) - expected).abs().max())
    if difference > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise SystemExit(f"the losses differ by {difference:.2e}; no time is taken")
    sides: dict[str, Callable[[], Tensor]] = {
        "shared prefix": lambda: losses.of_ids(rows),
        "no prefix cache, logits of the target alone": lambda: uncached.of_ids(rows),
    }
    for batch in PLAIN_BATCHES:
        sides[f"straightforward, batch {batch}"] = lambda batch=batch: plain(  # type: ignore[misc]
            model, prompt, rows, batch
        )
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repetitions + 1):
        for name, side in sides.items():
            taken = timed(side)
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    return table_rows(prompt, seconds, difference)


def timed(side: Callable[[], Tensor]) -> float:
    """Seconds of one step's candidates; their losses are on the CPU then, so nothing is pending."""
    started = time.perf_counter()
    side()
    return time.perf_counter() - started


def table_rows(
    prompt: AttackedPrompt, seconds: dict[str, list[float]], difference: float
) -> list[list[str]]:
    """Rates with their spread, and each against the best straightforward one."""
    best = min(statistics.median(taken) for name, taken in seconds.items() if "straight" in name)
    length = len(prompt.before) + TOKENS + len(prompt.after) + len(prompt.target)
    return [
        [
            f"{len(prompt.before)} of {length}",
            name,
            f"{WIDTH / statistics.median(taken):.0f}",
            f"{WIDTH / max(taken):.0f}–{WIDTH / min(taken):.0f}",
            f"{best / statistics.median(taken):.2f}",
            f"{difference:.0e}",
        ]
        for name, taken in seconds.items()
    ]


def page(model: AttackedModel, rows: list[list[str]], repetitions: int) -> str:
    """The measured table, and what made it."""
    header = [
        "Prefix tokens",
        "How",
        "Candidates/s",
        "Least–most",
        "Against the best straightforward",
        "Largest difference of losses",
    ]
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    config = model.policy.model.config
    shape = (
        f"{type(model.policy.model).__name__}, {config.num_hidden_layers} layers, hidden "
        f"{config.hidden_size}, vocabulary {model.policy.vocab_size}, {model.table.dtype}"
    )
    return "\n".join(
        [
            "# GCG: candidate evaluations a second",
            "",
            f"Made by `python benchmarks/gcg.py`. {shape}; {WIDTH} candidates of {TOKENS} tokens. "
            f"Medians of {repetitions} turns, all sides in one process, in turn, so "
            f"that what else the machine does falls on all of them.",
            "",
            f"Machine: {describe(torch.get_num_threads())}.",
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
