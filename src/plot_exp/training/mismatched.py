"""KTO's extra pass: how far the policy is from the reference on responses to other prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.data.mismatched import Mismatch, partners_of
from plot_exp.ops.scores import Scores
from plot_exp.training.world import World

ScorePlainly = Callable[[Batch], Scores]


@torch.no_grad()
def mismatched_log_ratio(
    microbatches: Sequence[Batch],
    mismatch: Mismatch,
    policy: ScorePlainly,
    reference: ScorePlainly,
    device: torch.device,
    world: World | None = None,
) -> Tensor | None:
    """The mean of s − s_ref over mismatched prompts and responses of the optimizer's whole batch.

    The batch is that of all processes and microbatches, so the value does not depend on how it is
    cut. TRL shifts the responses by one within a device's microbatch, in the data's own order.

    Args:
        policy, reference: score a batch, log-probabilities alone.
        device: of the models.

    Returns:
        A scalar, or None where all prompts of the batch are the same.
    """
    world = world or World()
    whole, first = world.gather_objects([item for batch in microbatches for item in batch.sources])
    partners = partners_of(whole)
    total = torch.zeros((), dtype=torch.float64, device=device)
    with world.pace():
        for batch in microbatches:
            own = slice(first, first + len(batch.sources))
            first = own.stop
            exchanged = mismatch.batch(whole[own], partners[own])
            if exchanged is not None:
                exchanged = exchanged.to(device)
                total += (policy(exchanged).sums() - reference(exchanged).sums()).sum()
    world.add_tensors([total])
    count = sum(len(other.response_ids) for other in partners if other is not None)
    return total / count if count else None
