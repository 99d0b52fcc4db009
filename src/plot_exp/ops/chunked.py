"""Outputs of the head without its logits: one gradient for all of them, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plot_exp.ops.head import Head
from plot_exp.ops.head_passes import Autocast, LinearPass, ModulePass
from plot_exp.ops.memory import HeadPlan
from plot_exp.ops.readout import OutputKey, Readout


@torch.compiler.disable
def read_head(head: Head, hidden: Tensor, readout: Readout) -> dict[OutputKey, Tensor]:
    """The outputs that a readout names, of the predicting hidden states [N, D].

    No more than a chunk of logits is held at a time, unless all of them fit: then they are kept
    from the forward to the backward pass, which saves computing them twice. Log-probabilities are
    fp32, or fp64 for a double model. Runs as it is within a compiled model.
    """
    autocast = Autocast.now(hidden.device)
    way = LinearPass if head.plain else ModulePass
    parameters = way.parameters_of(head)
    plan = HeadPlan.of(len(hidden), head.vocab_size, autocast.of(hidden), hidden.device, head.chunk)
    pulled = torch.is_grad_enabled() and any(
        one.requires_grad for one in (hidden, *parameters.values())
    )
    keep = pulled and plan.keep and way is LinearPass
    call = _Call(head, way, tuple(parameters), autocast, readout, plan, keep)
    outputs = _ReadHead.apply(call, hidden, *parameters.values())
    return dict(zip(readout.keys, outputs, strict=True))


@dataclass(frozen=True)
class _Call:
    """What the two passes share beside tensors."""

    head: Head
    way: type[LinearPass] | type[ModulePass]
    names: tuple[str, ...]
    autocast: Autocast
    readout: Readout
    plan: HeadPlan
    keep: bool

    def chunks(self, hidden: Tensor) -> list[slice]:
        """The positions of each chunk."""
        size, count = self.plan.chunk, len(hidden)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def room(self, hidden: Tensor, positions: int) -> Tensor:
        """Space for the bare logits of some positions."""
        dtype = self.autocast.of(hidden)
        return torch.empty(positions, self.head.vocab_size, dtype=dtype, device=hidden.device)

    def reference(self, rows: slice) -> Tensor | None:
        """The reference's logits, in the precision that the policy's are computed in."""
        with self.autocast.on():
            return self.readout.reference_logits(rows)


class _ReadHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, hidden: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        readout, count = call.readout, len(hidden)
        at_once = count if call.keep else min(count, call.plan.chunk)
        space = call.room(hidden, at_once if call.way.fills else 0)
        with call.autocast.off():
            named = dict(zip(call.names, parameters, strict=True))
            way = call.way(call.head, call.autocast, named)
            outputs = readout.room(call.head.vocab_size, space)
            for rows in call.chunks(hidden):
                out = space[rows] if call.keep else space[: rows.stop - rows.start]
                logits = way.logits(hidden[rows], out)
                reference = call.reference(rows)
                for _, block in readout.blocks(rows, logits, reference, call.plan.block):
                    readout.read(block, outputs)
        ctx.call, ctx.random_states = call, way.random_states
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, space if call.keep else None, *parameters)
        return readout.results(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *found: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        hidden, kept, *parameters = ctx.saved_tensors
        _, of_hidden, *wanted = ctx.needs_input_grad
        gradients = {
            key: gradient
            for key, gradient in zip(call.readout.keys, found, strict=True)
            if gradient is not None
        }
        into = torch.empty_like(hidden) if of_hidden else None
        # Logits that no further pass asks for make room for their own gradient.
        reused = kept is not None and not _graph_is_kept()
        space = None if reused else call.room(hidden, min(len(hidden), call.plan.chunk))
        with call.autocast.off():
            named = dict(zip(call.names, parameters, strict=True))
            way = call.way(call.head, call.autocast, named, wanted, ctx.random_states)
            for rows in call.chunks(hidden):
                room = kept[rows] if space is None else space[: rows.stop - rows.start]
                _pull_chunk(call, way, rows, hidden, kept, room, gradients, into)
        return None, into, *way.collected(parameters)


def _pull_chunk(
    call: _Call,
    way: LinearPass | ModulePass,
    rows: slice,
    hidden: Tensor,
    kept: Tensor | None,
    space: Tensor,
    gradients: dict[OutputKey, Tensor],
    into: Tensor | None,
) -> None:
    """Takes the gradients in the outputs through one chunk's logits.

    Args:
        space: [n, V] for the gradient in the logits, and for the logits where none are kept.
    """
    logits = way.logits(hidden[rows], space) if kept is None else kept[rows]
    reference = call.reference(rows)
    for at, block in call.readout.blocks(rows, logits, reference, call.plan.block):
        call.readout.pull(block, gradients, space[at])
    way.pull(hidden[rows], space, None if into is None else into[rows])


def _graph_is_kept() -> bool:
    """Whether this backward pass may be followed by another one (`retain_graph`)."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return ask is None or bool(ask())
