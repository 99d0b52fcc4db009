"""A policy whose weights lie in parts on several devices (FSDP2, `torch.distributed.fsdp`).

Each layer of the decoder is gathered when it is needed and let go again; embeddings, head and what
else stands outside of the layers are gathered once a pass. Gradients are summed over the processes,
not averaged: each has its share of one loss.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from plot_exp.errors import UserError
from plot_exp.models.parts import local
from plot_exp.models.policy import Policy, freeze
from plot_exp.ops.head import Head


def is_sharded(policy: nn.Module) -> bool:
    """Whether its weights lie in parts."""
    return isinstance(policy, FSDPModule)


def in_its_parts(policy: nn.Module) -> None:
    """Lets go of weights that a pass without gradients has left gathered."""
    if isinstance(policy, FSDPModule):
        policy.reshard()


def skeleton(policy: Policy) -> Policy:
    """A copy of the policy in which no weight takes memory; buffers are real."""
    shapes: dict[int, Any] = {}
    for parameter in policy.parameters():
        empty = torch.empty_like(parameter, device="meta")
        shapes[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    copied = copy.deepcopy(policy, shapes)
    copied.head = Head(copied.model.get_output_embeddings(), copied.model.config, policy.head.chunk)
    return copied


def shard(policy: Policy, mesh: DeviceMesh, weights: torch.dtype | None) -> None:
    """Leaves each process its part of the policy's weights, in place.

    Args:
        mesh: one dimension, all processes.
        weights: what layers are computed in, where that is not the weights' own precision;
            gradients are summed in fp32.

    Raises:
        UserError: the model has no stack of layers to shard.
    """
    # Scores are views of what the head gives, and nobody writes into them.
    warnings.filterwarnings("ignore", message=".*returned a view tensor")
    precision = MixedPrecisionPolicy()
    if weights is not None:
        precision = MixedPrecisionPolicy(param_dtype=weights, reduce_dtype=torch.float32)
    for layer in _layers(policy):
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    # The head is read behind the forward pass too: by a divergence from this policy.
    fully_shard(policy, mesh=mesh, mp_policy=precision, reshard_after_forward=False)
    register_fsdp_forward_method(policy, "outputs")
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            _sum_gradients(module)


def _layers(policy: Policy) -> list[nn.Module]:
    decoder = policy.model.get_decoder()
    stacks = [one for one in decoder.modules() if isinstance(one, nn.ModuleList) and len(one)]
    if not stacks:
        raise UserError(
            f"trainer=fsdp: {type(policy.model).__name__} has no stack of layers to cut; "
            "write trainer=ddp"
        )
    return list(stacks[0])


def _sum_gradients(module: FSDPModule) -> None:
    # Gloo has sums alone, and sums are what is wanted; before torch 2.8 there was another name.
    if hasattr(module, "set_force_sum_reduction_for_comms"):
        module.set_force_sum_reduction_for_comms(True)
    names = ("set_gradient_divide_factor", "set_reduce_scatter_divide_factor")
    known = next(name for name in names if hasattr(module, name))
    getattr(module, known)(1.0)


def frozen_like(policy: Policy, empty: Policy, mesh: DeviceMesh) -> Policy:
    """A sharded copy of a sharded policy as it is now, without gradients.

    Args:
        empty: `skeleton` of the policy; it becomes the copy.
    """
    in_its_parts(policy)
    empty = freeze(empty)
    shard(empty, mesh, _computed_in(policy))
    _materialise(empty, policy.device)
    with torch.no_grad():
        for own, source in zip(empty.parameters(), policy.parameters(), strict=True):
            local(own).copy_(local(source))
    return empty


def _computed_in(policy: Policy) -> torch.dtype | None:
    assert isinstance(policy, FSDPModule)
    return policy._get_fsdp_state()._mp_policy.param_dtype


def _materialise(policy: Policy, device: torch.device) -> None:
    """Gives weights without memory some; buffers keep their numbers."""
    buffers = dict(policy.named_buffers())
    kept = {name: buffer.clone() for name, buffer in buffers.items()}
    policy.to_empty(device=device)
    for name, buffer in policy.named_buffers():
        buffer.copy_(kept[name])


def gathered(policy: Policy, empty: Policy, *, here: bool) -> Policy | None:
    """The policy in one piece on the CPU of one process; every process must ask for it.

    Args:
        empty: `skeleton` of the policy; it becomes the copy.
        here: whether this process, which must be the first, is to have it.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(policy, options=options)
    if not here:
        return None
    empty.load_state_dict(state, assign=True, strict=False)
    empty.model.tie_weights()
    empty.head = Head(empty.model.get_output_embeddings(), empty.model.config, policy.head.chunk)
    return empty
