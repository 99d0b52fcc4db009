"""Policies whose optimizer steps can be taken in any batching, for tests of coupling."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from plot_exp.config.losses import (
    TERMS,
    AOTConfig,
    AOTUnpairedConfig,
    DEFTConfig,
    KLConfig,
    MSEConfig,
    PLOTConfig,
    SFTConfig,
    ULDConfig,
)
from plot_exp.data.collate import Batch, collate
from plot_exp.data.mismatched import Mismatch
from plot_exp.data.packing import PADDED, Layout
from plot_exp.losses.composite import Composite
from plot_exp.losses.context import Context
from plot_exp.models.dropout import set_dropout
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.ops.scores import Request, Scores
from plot_exp.training.coupling import Mode, Outcome, accumulate
from plot_exp.training.gradients import TermGradientMeter, add_term_gradients
from plot_exp.training.mismatched import mismatched_log_ratio
from plot_exp.training.part import Part
from plot_exp.training.world import World

from loss_scores import context
from scoring_models import VOCABULARY, example, tiny_model

Data = Callable[[int], list]


def ids(generator: torch.Generator, low: int, high: int) -> list[int]:
    size = int(torch.randint(low, high, (1,), generator=generator))
    return torch.randint(3, VOCABULARY, (size,), generator=generator).tolist()


def examples(count: int = 6) -> list:
    """Pairs of uneven lengths over a small vocabulary, every third a ranking of three."""
    draw = partial(ids, torch.Generator().manual_seed(3))
    found = []
    for place in range(count):
        prompt, pair = draw(1, 6), [[*draw(1, 9), 2], [*draw(1, 5), 2]]
        ranking = [*pair, [*draw(1, 7), 2]]
        scores = (2.5, 1.0, 1.0) if place == 1 else None
        found.append(example(prompt, ranking if place % 3 == 1 else pair, scores=scores))
    return found


def unpaired_examples(count: int = 6) -> list:
    """Labelled responses, some to one prompt, more of them desirable."""
    draw = partial(ids, torch.Generator().manual_seed(5))
    labels = [(True,), (False,), (True, True), (True,), (False, True, False), (True,)]
    return [
        example(draw(1, 6), [[*draw(1, 8), 2] for _ in labels[place]], desirable=labels[place])
        for place in range(count)
    ]


def facts() -> Context:
    generator = torch.Generator().manual_seed(4)
    embedding = torch.randn(VOCABULARY, 5, generator=generator)
    counts = torch.randint(0, 9, (2, VOCABULARY), generator=generator).tolist()
    return context(embedding, *counts, allowed=[place > 2 for place in range(VOCABULARY)])


SECTIONS = {
    **{name: section() for name, section in TERMS.items()},
    "sft": SFTConfig(weight=0.5),
    "aot": AOTConfig(beta=0.3),
    "aot_unpaired": AOTUnpairedConfig(relaxation="least_squares"),
    "plot": PLOTConfig(alpha=2.0, side="both"),
    "plot_response": PLOTConfig(distribution="response"),
    "plot_position": PLOTConfig(distribution="position"),
    "plot_exact": PLOTConfig(transport="exact"),
    # The floor lies among the batch's mean log-probabilities, so that both sides of it occur.
    "deft": DEFTConfig(side="both", floor=-4.3),
    "kl_position": KLConfig(direction="reverse", transform="softmax", distribution="position"),
    "kl_reverse": KLConfig(direction="reverse", transform="softmax"),
    "mse": MSEConfig(reduction="sum"),
    "uld": ULDConfig(distribution="response"),
    "uld_batch": ULDConfig(),
}


def composite(loss: str) -> Composite:
    """A term's name may carry a suffix for another setting of it."""
    terms = {}
    for name in loss.split("+"):
        known = max((term for term in TERMS if name.startswith(term)), key=len)
        module = importlib.import_module(f"plot_exp.losses.{known}")
        terms[name] = module.TERM(SECTIONS[name], facts())
    return Composite(terms)


class Run:
    """A policy, moved a little from its reference, whose steps can be taken in any batching."""

    def __init__(
        self,
        loss: str,
        *,
        dropout: float = 0.0,
        data: Data = examples,
        layout: Layout = PADDED,
    ) -> None:
        self.data = data
        self.collate = partial(collate, pad_id=0, layout=layout)
        model = tiny_model("qwen2", attention_dropout=dropout).double()
        self.policy = Policy(model)
        self.reference = frozen_copy(self.policy)
        set_dropout(self.reference, 0.0)
        set_dropout(self.policy, dropout)
        self.dropout = dropout
        with torch.no_grad():
            for parameter in self.policy.parameters():
                noise = torch.Generator().manual_seed(parameter.numel())
                parameter += 0.05 * torch.randn(
                    parameter.shape, generator=noise, dtype=parameter.dtype
                )
        self.composite = composite(loss)
        self.policy.train()

    def step(
        self,
        sizes: Sequence[Any],
        mode: Mode = "exact",
        carried: Sequence[Part] | None = None,
        meter: TermGradientMeter | None = None,
        world: World | None = None,
    ) -> tuple[Outcome, list[Tensor]]:
        """One pass over microbatches of these sizes; with a world, sizes hold one list a rank."""
        self.policy.zero_grad()
        weights = self.composite.weights
        rank = 0 if world is None else world.rank
        by_rank = [sizes] if world is None else sizes
        items, batches = self.data(sum(sum(row) for row in by_rank)), []
        items = items[sum(sum(row) for row in by_rank[:rank]) :]
        for size in by_rank[rank]:
            batches.append(self.collate(items[:size]))
            items = items[size:]
        # Every process takes as many passes, idle ones if it has no more examples.
        while len(batches) < max(len(row) for row in by_rank):
            batches.append(replace(self.collate(self.data(1)), idle=True))
        first = 0 if world is None else sum(len(row) for row in by_rank[:rank])

        request = self.composite.request

        def score_policy(batch: Batch, index: int, reference: Scores | None) -> Scores:
            torch.manual_seed(first + index)
            dropout_seed = 7 if self.dropout else None
            return self.policy(batch, request, dropout_seed, self.reference.states(reference))

        def pull_back(outputs: list[Tensor], gradients: dict[str, list[Tensor]]) -> None:
            weighted = {n: [weights[n] * g for g in rows] for n, rows in gradients.items()}
            if meter is not None:
                meter.add(outputs, weighted)
            torch.autograd.backward(outputs, add_term_gradients(weighted))

        def score_reference(batch: Batch) -> Scores:
            with torch.no_grad():
                return self.reference(batch, request.of_reference())

        outcome = accumulate(
            batches,
            score_policy=score_policy,
            score_reference=score_reference if self.composite.needs_reference else None,
            composite=self.composite,
            mode=mode,
            carried=carried,
            pull_back=pull_back,
            world=world,
            mismatched=self.mismatched([one for one in batches if not one.idle], world),
        )
        return outcome, [parameter.grad.clone() for parameter in self.policy.parameters()]

    def mismatched(self, batches: list[Batch], world: World | None) -> Tensor | None:
        """What KTO's reference point is made of, where the loss needs it."""
        if not self.composite.needs_mismatched:
            return None
        seed = 7 if self.dropout else None
        return mismatched_log_ratio(
            batches,
            Mismatch(self.collate, max_length=64),
            lambda batch: self.policy(batch, Request(), seed),
            lambda batch: self.reference(batch, Request()),
            self.policy.device,
            world,
        )
