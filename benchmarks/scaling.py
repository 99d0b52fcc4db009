"""What scoring costs as V, N, the prompt's share and K grow: packed rows against padded ones.

    python benchmarks/scaling.py [--repetitions 5] [--small]

Forward and backward pass from token ids to the sum of the responses' log-probabilities, collation
included, of a random Qwen2 model on one thread. The layouts take their turns; times are the
process's own, so that other work on the machine counts little. Their log-probabilities are compared
before anything is timed. Over V and N the cost should be a line: a least-squares fit over a decade
of each says whether it is. Writes benchmarks/results/scaling.md; `--small` writes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import describe
from transformers import Qwen2Config, Qwen2ForCausalLM

from plot_exp.data.collate import collate
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.data.packing import Layout
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.files import write_text
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

LAYOUTS = {"packed": Layout("packed", joined=True), "padded": Layout()}
HIDDEN, LAYERS, TOLERANCE = 128, 2, 1e-4


@dataclass(frozen=True)
class Case:
    """Examples of one size under a vocabulary.

    Attributes:
        length: tokens of a prompt with one response.
        share: of the prompt in it.
        responses: K, of each example.
    """

    vocab_size: int = 8_192
    examples: int = 8
    length: int = 128
    share: float = 0.5
    responses: int = 2

    @property
    def prompt(self) -> int:
        """Tokens of a prompt: one at least, to predict the first response token from."""
        return max(1, round(self.share * self.length))

    @property
    def scored(self) -> int:
        """N."""
        return self.examples * self.responses * (self.length - self.prompt)

    def items(self) -> list[TokenisedExample]:
        """Random ids."""
        draw = torch.Generator().manual_seed(0)

        def ids(count: int) -> tuple[int, ...]:
            return tuple(torch.randint(3, self.vocab_size, (count,), generator=draw).tolist())

        texts = tuple(f"{place}" for place in range(self.responses))
        source = PreferenceExample((Message("user", "?"),), texts, "none", "none", Origin("", 0))
        own = self.length - self.prompt
        return [
            TokenisedExample(source, ids(self.prompt), tuple(ids(own) for _ in texts))
            for _ in range(self.examples)
        ]


def policy_of(vocab_size: int) -> Policy:
    """A random model with so many rows in its head."""
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return Policy(Qwen2ForCausalLM(shape))


def measure(case: Case, repetitions: int) -> dict[str, float]:
    """Milliseconds of a pass in each layout, medians."""
    policy, items = policy_of(case.vocab_size), case.items()

    def one(layout: Layout) -> torch.Tensor:
        policy.zero_grad(set_to_none=True)
        logps = policy(collate(items, 0, layout), Request()).token_logps
        logps.sum().backward()
        return logps.detach()

    first = [one(layout) for layout in LAYOUTS.values()]  # warms up, too
    if not torch.allclose(*first, rtol=0, atol=TOLERANCE):
        raise SystemExit(f"{case}: the layouts' log-probabilities differ")
    taken: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    for _ in range(repetitions):
        for name, layout in LAYOUTS.items():
            started = time.process_time()
            one(layout)
            taken[name].append(1000 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in taken.items()}


def line(sizes: list[int], costs: list[float], unit: str) -> str:
    """The least-squares line through the costs, and how well it fits."""
    slope, start = np.polyfit(sizes, costs, 1)
    rest = np.asarray(costs) - (slope * np.asarray(sizes) + start)
    fit = 1 - rest.var() / np.var(costs)
    return f"{start:.1f} ms + {1000 * slope:.2f} ms per 1,000 {unit}, R² {fit:.4f}"


def table(
    name: str, cases: list[Case], value: Callable[[Case], float], repetitions: int, unit: str = ""
) -> list[str]:
    """One row a case; with a unit also the line through them."""
    form = ",.0f" if value(cases[-1]) > 1 else ".2f"
    rows, found = [], []
    for case in cases:
        found.append(measure(case, repetitions))
        packed, padded = found[-1]["packed"], found[-1]["padded"]
        whole = case.examples * case.responses * case.length
        shared = case.examples * (case.prompt + case.responses * (case.length - case.prompt))
        rows.append(
            f"| {value(case):{form}} | {packed:.1f} | {padded:.1f} | {padded / packed:.2f} "
            f"| {whole / shared:.2f} |"
        )
        print(rows[-1], flush=True)
    lines = ["", f"| {name} | packed, ms | padded, ms | padded / packed | of positions |"]
    lines += ["|--:|--:|--:|--:|--:|", *rows]
    if unit:
        sizes = [int(value(case)) for case in cases]
        fits = [f"{one} {line(sizes, [row[one] for row in found], unit)}" for one in LAYOUTS]
        lines += ["", f"Lines: {'; '.join(fits)}."]
    return lines


def main() -> None:
    """Measures the four tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base, repetitions = Case(), arguments.repetitions
    if arguments.small:
        base, repetitions = Case(vocab_size=64, examples=1, length=8), 1
    factors = (1, 2, 4, 6, 10)
    vocabularies = [replace(base, vocab_size=base.vocab_size // 2 * one) for one in factors]
    counts = [replace(base, examples=max(1, base.examples // 4) * one) for one in factors]
    shares = [replace(base, share=one) for one in (0.1, 0.3, 0.5, 0.7, 0.9)]
    numbers = [replace(base, responses=one, examples=1) for one in (1, 2, 4, 8, 16)]
    lines = [
        "# Scoring as V, N, the prompt's share and K grow",
        "",
        "Written by `python benchmarks/scaling.py`; see there for what is measured. Hidden "
        f"{HIDDEN}, {LAYERS} layers, fp32; unless said otherwise vocabulary {base.vocab_size:,}, "
        f"{base.examples} examples of {base.responses} responses, {base.length} tokens a prompt "
        f"with its response, half of them the prompt's. Medians of {repetitions} in turn. "
        f"{describe(1)}.",
        "",
        "*Of positions* is what the padded form's positions are of the packed form's: what sharing "
        "the prompt would spare if the trunk were everything; the head costs both the same.",
        *table("V", vocabularies, lambda case: case.vocab_size, repetitions, "tokens"),
        *table("N", counts, lambda case: case.scored, repetitions, "positions"),
        *table("prompt's share", shares, lambda case: case.share, repetitions),
        *table("K, one example", numbers, lambda case: case.responses, repetitions),
    ]
    text = "\n".join(lines) + "\n"
    if not arguments.small:
        write_text(Path(__file__).parent / "results" / "scaling.md", text)
    print(text)


if __name__ == "__main__":
    main()
