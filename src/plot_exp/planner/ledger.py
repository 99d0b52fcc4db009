"""Who holds how many bytes at every moment of a rehearsal on tensors without numbers.

A rehearsal runs the real code under torch's fake tensors: every operation gives a tensor of the
right shape and precision, and nothing is computed. The ledger stands above them and books each new
storage until the last one who holds it, autograd's graph included, lets it go.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Bytes = Counter[str]
# Parts whose copies in another precision are autocast's.
STORED = ("weights", "weights in four bits")


@dataclass
class _Entry:
    """One storage: what it is booked as."""

    part: str
    size: int
    reference: Any


@dataclass(frozen=True)
class Gathered:
    """Bytes of sharded weights that are whole on a device during a pass.

    Attributes:
        weights: a layer, the next one, and what stands outside of the layers.
        gradients: of a layer and of the rest, in the backward pass, before they are shared out.
    """

    weights: float
    gradients: float


@dataclass
class Ledger:
    """Books storages by part, and keeps the highest moment of each phase.

    Attributes:
        part: what a new storage is booked as.
        phase: what is going on.
        live: bytes of each part at this moment.
        peaks: for each phase, the parts at its highest moment.
        flops: of each phase, those of matrix products and attention.
        shares: the factor of a part's bytes where a device holds only its share of them.
        gathered: what of the shares is whole for the moment.
    """

    part: str = "activations"
    phase: str = "start"
    prefix: str = ""
    live: Bytes = field(default_factory=Counter)
    peaks: dict[str, Bytes] = field(default_factory=dict)
    flops: Counter[str] = field(default_factory=Counter)
    shares: dict[str, float] = field(default_factory=dict)
    gathered: Gathered | None = None
    _entries: dict[int, _Entry] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Bytes held at this moment."""
        return self.weigh(self.live)

    def weigh(self, parts: Bytes) -> float:
        """Bytes on one device."""
        return sum(size * self.shares.get(part, 1.0) for part, size in parts.items())

    def enter(self, phase: str, part: str | None = None) -> None:
        """A new phase begins, with what is there."""
        self.phase = self.prefix + phase
        if part is not None:
            self.part = part
        self._note()

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Phases that begin in here carry this name before their own."""
        before, self.prefix = self.prefix, f"{name}: "
        try:
            yield
        finally:
            self.prefix = before

    @contextmanager
    def booking(self, part: str) -> Iterator[None]:
        """Books new storages as this part, for the moment."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def book(self, tensor: Tensor, part: str | None = None) -> None:
        """Books a tensor's storage, once; a part that is named replaces the earlier one."""
        storage = tensor.untyped_storage()
        key = id(storage)
        entry = self._entries.get(key)
        if entry is None:
            gone = weakref.ref(storage, partial(self._let_go, key))
            entry = _Entry(part or self.part, storage.nbytes(), gone)
            self._entries[key] = entry
            self.live[entry.part] += entry.size
            self._note()
        elif part is not None and part != entry.part:
            self.live[entry.part] -= entry.size
            self.live[part] += entry.size
            entry.part = part

    def give_up(self, tensor: Tensor) -> None:
        """Books a tensor's storage no longer: another one takes its place."""
        self._let_go(id(tensor.untyped_storage()))

    def part_of(self, tensor: Tensor) -> str | None:
        """What a tensor's storage is booked as."""
        entry = self._entries.get(id(tensor.untyped_storage()))
        return None if entry is None else entry.part

    def _let_go(self, key: int, _: Any = None) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.live[entry.part] -= entry.size

    def _note(self) -> None:
        before = self.peaks.get(self.phase)
        if before is None or self.total > self.weigh(before):
            self.peaks[self.phase] = +self.live


class _Booking(TorchDispatchMode):
    """Shows every operation's results to the ledger.

    What a batch says of itself (ids, places, lengths) are real numbers, which shapes depend on:
    operations on them alone are computed.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if _computed(given, kwargs):
            with unset_fake_temporarily():
                found = func(*args, **kwargs)
        else:
            found = func(*args, **kwargs)
        if self._adds_gradients(func, given):
            self.ledger.give_up(given[0])
        part = None
        if func is torch.ops.aten._to_copy.default and self.ledger.part_of(args[0]) in STORED:
            part = "autocast copies"
        for one in tree_leaves(found):
            if isinstance(one, Tensor):
                self._book(one, part)
        count = flop_registry.get(func.overloadpacket)
        if count is not None and not _computed(given, kwargs):
            self.ledger.flops[self.ledger.phase] += count(*args, **kwargs, out_val=found)
        return found

    def _adds_gradients(self, func: Any, given: list[Tensor]) -> bool:
        """Whether autograd adds up two gradients of one tensor.

        With numbers it does so in the first one's place, for which a tensor of a rehearsal, being
        of a class of its own, is not taken. What runs again under checkpointing has grad mode on.
        """
        adds = func is torch.ops.aten.add.Tensor and not torch.is_grad_enabled()
        alike = len(given) == 2 and given[0].shape == given[1].shape
        return adds and alike and "backward" in self.ledger.phase

    def _book(self, tensor: Tensor, part: str | None) -> None:
        if part is None:
            self.ledger.book(tensor)
            return
        with self.ledger.booking(part):
            self.ledger.book(tensor)


def _computed(given: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether an operation is on real numbers: of the batch, or a new tensor of whole numbers."""
    if given:
        return not any(isinstance(one, FakeTensor) for one in given)
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    return not dtype.is_floating_point


@contextmanager
def rehearsing(ledger: Ledger) -> Iterator[None]:
    """Within this nothing is computed but on a batch's own whole numbers."""
    with FakeTensorMode(allow_non_fake_inputs=True), _Booking(ledger):
        yield
