"""A step for which memory ran out is taken again in smaller pieces, which changes no number.

First the logits that are held at once are halved, as long as they count; then the examples of a
microbatch. Every exact coupling gives the same gradients however the batch is cut, so nothing is
lost but time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from plot_exp.data.collate import Batch
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.errors import PausedError
from plot_exp.losses.composite import Composite
from plot_exp.models.policy import Policy
from plot_exp.ops.memory import SMALL_BYTES, HeadPlan
from plot_exp.ops.out_of_memory import is_out_of_memory, release
from plot_exp.training.coupling import Mode

T = TypeVar("T")
Collate = Callable[[Sequence[TokenisedExample]], Batch]

ADVICE = (
    "take trainer.activation_checkpointing=true, a smaller dataset.max_length, or adapters "
    "(model.lora.rank=16); task=plan says what fits. In a run that is gone on with, such a "
    "setting is changed in its config.yaml; where another program took the memory, none need be"
)


class SmallerSteps:
    """Tries a step, and tries it again in smaller pieces; these are kept for the steps to come.

    Args:
        composite: the loss terms, whose state is as before a step that is tried again.
        policies: those that a step scores with.
        coupling: with `microbatch` a coupled term means another thing in smaller microbatches, so
            that they are left as they are.
        collate: lays examples out as one batch; None leaves the microbatches as they are.

    Attributes:
        examples: of a microbatch at most; None as long as memory suffices.
    """

    def __init__(
        self,
        composite: Composite,
        policies: Sequence[Policy],
        coupling: Mode,
        collate: Collate | None,
    ) -> None:
        self.composite, self.policies = composite, policies
        self.collate = None if composite.coupled and coupling == "microbatch" else collate
        self.examples: int | None = None

    def take(
        self,
        step: int,
        microbatches: Sequence[Batch],
        attempt: Callable[[list[Batch]], T],
        forget: Callable[[bool], None],
        save: Callable[[], str],
    ) -> T:
        """What `attempt` gives of the microbatches, or of smaller ones.

        Args:
            step: for what is said.
            attempt: takes the step up to its gradients.
            forget: undoes what a failed attempt left; told whether microbatches are cut from here.
            save: saves the state before the step, and says what it saved.

        Raises:
            PausedError: memory runs out for the smallest pieces too.
        """
        state = self.composite.state_dict()
        while True:
            pieces = self._cut(microbatches)
            try:
                return attempt(pieces)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = _brief(error)
            # Outside of the handler, where the error no longer holds the tensors of its frames.
            before = self.examples
            change = self._smaller(pieces)
            forget(self.examples != before)
            self.composite.load_state_dict(state)
            release()
            if change is None:
                raise PausedError(
                    f"step {step}: {said}, in the smallest pieces too; {save()}. "
                    f"To need less, {ADVICE}. Then go on"
                )
            print(
                f"step {step}: {said}; it is taken again with {change}, and so are those to come "
                "(the same gradients, more slowly)",
                file=sys.stderr,
                flush=True,
            )

    def _cut(self, microbatches: Sequence[Batch]) -> list[Batch]:
        if self.examples is None or self.collate is None:
            return list(microbatches)
        pieces = []
        for batch in microbatches:
            sources = batch.sources
            if len(sources) <= self.examples:
                pieces.append(batch)
                continue
            for start in range(0, len(sources), self.examples):
                pieces.append(self.collate(sources[start : start + self.examples]))
        return pieces

    def _smaller(self, pieces: Sequence[Batch]) -> str | None:
        """Makes what comes smaller, and says how; None where nothing can be made smaller."""
        positions = max(len(batch.predict_index) for batch in pieces)
        held = max(_held(policy, positions) for policy in self.policies)
        row = 4 * max(policy.vocab_size for policy in self.policies)
        if held > 1 and held * row > SMALL_BYTES:
            chunk = held // 2
            for policy in self.policies:
                policy.head.chunk = chunk
            return f"the logits of {chunk} positions at a time (trainer.head_chunk={chunk})"
        largest = max(len(batch.sources) for batch in pieces)
        if self.collate is not None and largest > 1:
            self.examples = -(-largest // 2)
            return f"{self.examples} examples a microbatch (trainer.microbatch_size)"
        return None


def _held(policy: Policy, positions: int) -> int:
    """How many positions' logits the head holds at once."""
    head = policy.head
    dtype = head.output_embedding.weight.dtype
    assert isinstance(dtype, torch.dtype)
    plan = HeadPlan.of(positions, policy.vocab_size, dtype, policy.device, head.chunk)
    return positions if plan.keep else min(positions, plan.chunk)


@contextmanager
def memory_explained() -> Iterator[None]:
    """Turns an error of memory that no smaller step could help into a sentence.

    Raises:
        PausedError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise PausedError(
            f"{_brief(error)}, outside of what smaller pieces help: in the optimizer's own states, "
            "in a validation (trainer.validation_batch_size), or on one of several processes; the "
            f"last checkpoint stands. To need less, {ADVICE}. Then go on"
        ) from error


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"memory ran out ({lines[0][:160]})" if lines else "memory ran out"
