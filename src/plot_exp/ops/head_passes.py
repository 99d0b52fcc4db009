"""One way through the output embedding, chunk by chunk: logits out, gradients back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plot_exp.ops.head import Head


@dataclass(frozen=True)
class Autocast:
    """The mixed precision that was on when the head was called; backward passes have none."""

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def now(device: torch.device) -> Autocast:
        """What is on at present."""
        kind = device.type
        return Autocast(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def on(self) -> AbstractContextManager[Any]:
        """The same again."""
        return torch.autocast(self.device_type, self.dtype, enabled=self.enabled)

    def off(self) -> AbstractContextManager[Any]:
        """None of it."""
        return torch.autocast(self.device_type, enabled=False)

    def of(self, tensor: Tensor) -> torch.dtype:
        """The precision that a matrix product takes this tensor in."""
        return self.dtype if self.enabled and tensor.dtype != torch.float64 else tensor.dtype


class LinearPass:
    """A bare linear layer, by hand: gradients of the weight are added up in place.

    Class attributes:
        fills: `logits` writes to the space it is given.

    Args:
        parameters: of `parameters_of(head)`, by name.
        wanted: which of the parameters collect a gradient.
        random_states: nothing here is random.
    """

    fills: ClassVar[bool] = True

    def __init__(
        self,
        head: Head,
        autocast: Autocast,
        parameters: Mapping[str, Tensor],
        wanted: Sequence[bool] = (),
        random_states: list[Tensor] | None = None,
    ) -> None:
        weight, bias = parameters["weight"], parameters.get("bias")
        self.weight = weight.to(autocast.of(weight))
        self.bias = None if bias is None else bias.to(self.weight.dtype)
        self.sums = [_Sum(want) for want in wanted]
        self.random_states: list[Tensor] = []

    @staticmethod
    def parameters_of(head: Head) -> dict[str, Tensor]:
        """Weight [V, D] and, where there is one, bias [V]."""
        return dict(head.output_embedding.named_parameters())

    def logits(self, hidden: Tensor, out: Tensor) -> Tensor:
        """Bare logits [n, V] of a chunk, written to `out`."""
        hidden = hidden.to(self.weight.dtype)
        if self.bias is None:
            return torch.mm(hidden, self.weight.T, out=out)
        return torch.addmm(self.bias, hidden, self.weight.T, out=out)

    def pull(self, hidden: Tensor, gradient: Tensor, into: Tensor | None) -> None:
        """Takes the gradient [n, V] in a chunk's logits back.

        Args:
            into: where the gradient [n, D] in the hidden states goes, if it is wanted.
        """
        if into is not None:
            into.copy_(gradient @ self.weight)
        self.sums[0].add_product(gradient.T, hidden.to(gradient.dtype))
        for of_bias in self.sums[1:]:
            of_bias.add(gradient.sum(0, dtype=_at_least_single(gradient.dtype)))

    def collected(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients in the parameters."""
        return [one.as_(p.dtype) for one, p in zip(self.sums, parameters, strict=True)]


class ModulePass:
    """Any module: its forward pass is repeated under autograd in the backward pass.

    Its logits cannot be kept, so it costs one more forward pass of the head. Dropout inside it is
    repeated too.

    Args:
        parameters, wanted: as `LinearPass`.
        random_states: `random_states` of the forward pass, to be repeated.
    """

    fills: ClassVar[bool] = False

    def __init__(
        self,
        head: Head,
        autocast: Autocast,
        parameters: Mapping[str, Tensor],
        wanted: Sequence[bool] = (),
        random_states: list[Tensor] | None = None,
    ) -> None:
        self.module, self.autocast = head.output_embedding, autocast
        self.parameters = {name: one.detach() for name, one in parameters.items()}
        self.sums = [_Sum(want) for want in wanted]
        self.random_states: list[Tensor] = []
        self._repeated = None if random_states is None else iter(random_states)
        self._leaves: list[Tensor] = []
        self._logits: Tensor | None = None

    @staticmethod
    def parameters_of(head: Head) -> dict[str, Tensor]:
        """What is trained of the module."""
        named = head.output_embedding.named_parameters()
        return {name: one for name, one in named if one.requires_grad}

    def logits(self, hidden: Tensor, out: Tensor) -> Tensor:
        """Bare logits [n, V] of a chunk."""
        if self._repeated is None:
            if _draws(self.module):
                self.random_states.append(_random_state(hidden.device))
            return self._call(hidden)
        leaf = hidden.detach().requires_grad_()
        self._leaves = [leaf]
        for one, kept in zip(self.parameters.values(), self.sums, strict=True):
            self._leaves.append(one.requires_grad_(kept.wanted))
        with torch.enable_grad(), _repeat(next(self._repeated, None), hidden.device):
            self._logits = self._call(leaf)
        return self._logits.detach()

    def _call(self, hidden: Tensor) -> Tensor:
        with self.autocast.on():
            found: Tensor = functional_call(self.module, self.parameters, (hidden,))
        return found

    def pull(self, hidden: Tensor, gradient: Tensor, into: Tensor | None) -> None:
        """As `LinearPass.pull`, for the chunk whose logits were asked for last."""
        assert self._logits is not None
        leaves = [one for one in self._leaves if one.requires_grad]
        found = iter(torch.autograd.grad(self._logits, leaves, gradient.to(self._logits.dtype)))
        of_hidden = next(found)
        if into is not None:
            into.copy_(of_hidden)
        for kept in self.sums:
            if kept.wanted:
                kept.add(next(found))
        self._logits, self._leaves = None, []

    def collected(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients in the parameters."""
        return [one.as_(p.dtype) for one, p in zip(self.sums, parameters, strict=True)]


class _Sum:
    """A gradient that is added up over chunks; half precision is added in single.

    Args:
        wanted: else nothing is kept.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.total: Tensor | None = None

    def add(self, part: Tensor) -> None:
        """Adds a chunk's."""
        if not self.wanted:
            return
        if self.total is None:
            self.total = part
            return
        self.total = self.total.to(_at_least_single(part.dtype))
        self.total.add_(part)

    def add_product(self, left: Tensor, right: Tensor) -> None:
        """Adds left · right without holding it, where the precision allows."""
        if not self.wanted:
            return
        exact = _at_least_single(left.dtype) == left.dtype
        if self.total is None or not exact:
            self.add(left @ right)
        else:
            self.total.addmm_(left, right)

    def as_(self, dtype: torch.dtype) -> Tensor | None:
        """The sum; None if it is not wanted."""
        return None if self.total is None else self.total.to(dtype)


def _draws(module: nn.Module) -> bool:
    """Whether a call takes random numbers."""
    return any(one.training and "Dropout" in type(one).__name__ for one in module.modules())


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _repeat(state: Tensor | None, device: torch.device) -> Iterator[None]:
    """Random numbers as they were drawn from a state, leaving today's as they are."""
    if state is None:
        yield
        return
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        if cuda:
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        yield


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
