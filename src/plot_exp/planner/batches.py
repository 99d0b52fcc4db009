"""Which microbatches a run will have, and the heaviest of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from plot_exp.config.schema import Config
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.data.loader import StepLoader
from plot_exp.data.order import balanced, in_runs, sizes_up_to
from plot_exp.data.packing import Layout
from plot_exp.data.tokenise import TokenisedExample

# Steps that are looked through for the heaviest microbatch.
STEPS_SEEN = 2_000

Items = tuple[TokenisedExample, ...]


@dataclass(frozen=True)
class Load:
    """What a run's steps consist of.

    Attributes:
        heaviest: microbatches that may need the most memory: the one with the most positions, and
            the one with the most scored tokens where that is another.
        microbatches: of a step, at most.
        steps: of the run.
        positions: of a step on one device, padding included, on average.
        tokens: of a step on all devices, on average.
    """

    heaviest: tuple[Items, ...]
    microbatches: int
    steps: int
    positions: float
    tokens: float


def load_of(
    config: Config, examples: Sequence[TokenisedExample], layout: Layout, processes: int
) -> Load:
    """The load of a run over these examples."""
    trainer = config.trainer
    loader = StepLoader(
        examples,
        batch_size=trainer.batch_size,
        microbatch_size=trainer.microbatch_size,
        epochs=trainer.epochs,
        max_steps=trainer.max_steps,
        seed=config.seed,
        pad_id=0,
        processes=processes,
        layout=layout,
        group_by_length=trainer.group_by_length,
    )
    widest: tuple[int, Items] = (-1, ())
    longest: tuple[int, Items] = (-1, ())
    count, positions, tokens = 0, 0.0, 0.0
    seen = range(min(len(loader), STEPS_SEEN))
    for step in seen:
        parts = step_parts(loader, step)
        count = max(count, len(parts))
        for part in parts:
            items = tuple(examples[index] for index in part)
            widest = max(widest, (positions_of(items, layout), items), key=lambda one: one[0])
            longest = max(longest, (scored(items), items), key=lambda one: one[0])
            positions += positions_of(items, layout)
        tokens += sum(shared_tokens(examples[index]) for index in loader.indices(step))
    heaviest = [widest[1]]
    if longest[0] > scored(widest[1]):
        heaviest.append(longest[1])
    return Load(tuple(heaviest), count, len(loader), positions / len(seen), tokens / len(seen))


def step_parts(loader: StepLoader, step: int) -> list[list[int]]:
    """The examples of each microbatch of a step, as `StepLoader.microbatches` cuts them."""
    own = loader.own_indices(step)
    lengths, size = [loader.lengths[index] for index in own], loader.microbatch_size
    if loader.layout.pads:
        parts = in_runs(lengths, size)
    else:
        parts = balanced(lengths, sizes_up_to(len(own), size))
    return [[own[place] for place in part] for part in parts]


def positions_of(items: Sequence[TokenisedExample], layout: Layout) -> int:
    """Positions of the rows of some examples, padding included (of packed rows about)."""
    lengths = [layout.length(item) for item in items]
    if layout.joined:
        return math.ceil(sum(lengths) / layout.multiple) * layout.multiple
    if layout.name == "padded":
        return max(lengths) * sum(len(item.response_ids) for item in items)
    if layout.name == "shared":
        return max(lengths) * len(lengths)
    capacity = max(layout.capacity or 0, *lengths)
    return math.ceil(sum(lengths) / capacity) * capacity


def scored(items: Sequence[TokenisedExample]) -> int:
    """Response tokens, which go through the head."""
    return sum(len(ids) for item in items for ids in item.response_ids)


def shared_tokens(item: TokenisedExample) -> int:
    """Tokens of an example, its prompt once for all responses."""
    return len(item.prompt_ids) + sum(len(ids) for ids in item.response_ids)


def alike(count: int, prompt: int, response: int, responses: int = 2) -> list[TokenisedExample]:
    """Examples that are all as long, where no data can be read."""
    source = PreferenceExample((Message("user", ""),), ("",) * responses, "", "", Origin("", 0))
    ids = tuple((0,) * response for _ in range(responses))
    return [TokenisedExample(source, (0,) * prompt, ids)] * count
