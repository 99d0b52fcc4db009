"""Every output of the head written down plainly over all logits, and left to autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.ops.scores import Request


def plain_outputs(
    logits: Tensor, batch: Batch, request: Request, reference: Tensor | None = None
) -> list[Tensor]:
    """Token log-probabilities, token outputs and pools, each in the order of their names.

    Args:
        logits: [N, V] as the model gives them.
        reference: [N, V] the reference's.
    """
    precise = logits if logits.dtype == torch.float64 else logits.float()
    logps = torch.log_softmax(precise, dim=-1)
    p = logps.exp()
    found = [logps[torch.arange(len(logps)), batch.targets]]
    for name in sorted(request.tokens - {"hidden", "predicting_hidden"}):
        if name == "entropy":
            found.append(-(p * logps).sum(-1))
        elif name == "reference_kl":
            assert reference is not None
            found.append(
                nn.functional.kl_div(
                    logps, reference.to(precise.dtype).softmax(-1), reduction="none"
                ).sum(-1)
            )
        else:
            assert request.embedding is not None
            unit = request.embedding.beside(logps)
            found.append((p * (1 - unit[batch.targets] @ unit.T)).sum(-1))
    for side, pool in sorted(request.distributions):
        of_side = batch.responses.chosen if side == "chosen" else batch.responses.rejected
        values = logps if pool.startswith("log_") else p
        if pool == "position":
            found.append(values[of_side[batch.response_of_token]])
            continue
        by_response = [
            values[batch.response_of_token == response].sum(0)
            for response in of_side.nonzero().flatten().tolist()
        ]
        stacked = torch.stack(by_response)
        found.append(stacked.sum(0) if pool.endswith("batch") else stacked)
    return found


def upstream(outputs: list[Tensor]) -> list[Tensor]:
    """A gradient for each output, the same for equal shapes."""
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.dtype)
        for one in outputs
    ]


def pulled(outputs: list[Tensor], inputs: list[Tensor], **options: Any) -> list[Tensor]:
    """The gradients of the outputs, weighed by `upstream`, in the inputs."""
    return list(torch.autograd.grad(outputs, inputs, upstream(outputs), **options))
