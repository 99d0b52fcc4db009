"""A training run's token distributions, step by step, with what they are compared to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from plot_exp.config.composition import compose
from plot_exp.config.losses import PLOTConfig
from plot_exp.losses.context import Context
from plot_exp.losses.plot import PLOT
from plot_exp.workflows import train


@dataclass(frozen=True)
class Trajectory:
    """What a run went through.

    Attributes:
        distributions: fp32 [steps, V], p of each optimizer step, over the allowed tokens.
        target: [V], of the run.
        allowed: [V] bool.
        token_mass: [V], the allowed tokens' mass in the training responses.
        chosen, rejected: [V] token counts of the training responses.
        reference: [V], the reference's mean distribution.
        input, contextual: [V, D], the reference's embeddings.
    """

    distributions: Tensor
    target: Tensor
    allowed: Tensor
    token_mass: Tensor
    chosen: Tensor
    rejected: Tensor
    reference: Tensor
    input: Tensor
    contextual: Tensor

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        save_file(
            {field.name: getattr(self, field.name).contiguous() for field in fields(self)}, path
        )

    @classmethod
    def load(cls, path: Path) -> Trajectory:
        """Reads `save`'s file."""
        return cls(**load_file(path))


def record(overrides: Sequence[str], run_dir: Path) -> Trajectory:
    """Trains as `python -m plot_exp OVERRIDES` does and keeps every step's p.

    Args:
        overrides: as on the command line; the loss must hold `plot` over the batch.
        run_dir: the run's folder; made here.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with _watched() as (seen, terms):
        train.run(compose(["logger=none", "eval=none", *overrides]), run_dir)
    term, context = terms[0]
    counts = context.token_counts()
    return Trajectory(
        distributions=torch.stack(seen),
        target=term.target.double().cpu(),
        allowed=term.allowed.cpu(),
        token_mass=counts.mass(term.allowed).cpu(),
        chosen=counts.chosen,
        rejected=counts.rejected,
        reference=context.reference_distribution(),
        input=context.input_embedding(),
        contextual=context.contextual_embedding(),
    )


@contextmanager
def _watched() -> Iterator[tuple[list[Tensor], list[tuple[PLOT, Context]]]]:
    """Keeps the p of every training step, and the terms that are built, the run's own first."""
    seen: list[Tensor] = []
    terms: list[tuple[PLOT, Context]] = []
    build, distance = PLOT.__init__, PLOT.distance

    def watched_build(self: PLOT, config: PLOTConfig, context: Context) -> None:
        build(self, config, context)
        terms.append((self, context))

    def watched_distance(self: PLOT, p: Tensor) -> Tensor:
        if p.requires_grad:
            seen.append(p.detach().float().cpu())
        return distance(self, p)

    try:
        PLOT.__init__, PLOT.distance = watched_build, watched_distance  # type: ignore[method-assign]
        yield seen, terms
    finally:
        PLOT.__init__, PLOT.distance = build, distance  # type: ignore[method-assign]
