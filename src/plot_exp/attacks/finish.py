"""From the ids that a white-box attack found to a test case."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from plot_exp.attacks.base import Candidate, Case
from plot_exp.attacks.model import AttackedModel, SlotLosses
from plot_exp.attacks.prompt import AttackedPrompt


@dataclass
class Best:
    """The candidate with the lowest loss so far; a tie stays with the earlier one."""

    ids: tuple[int, ...]
    loss: float = float("inf")

    def offer(self, ids: Sequence[int], loss: float) -> bool:
        """Takes a better candidate."""
        if loss >= self.loss:
            return False
        self.ids, self.loss = tuple(ids), loss
        return True


class Meter:
    """What one case cost: seconds, and sequences forward and backward."""

    def __init__(self, model: AttackedModel) -> None:
        self.model = model
        self.started = time.perf_counter()
        self.before = (model.evaluations, model.gradients)

    def __call__(self, cases: int = 1) -> dict[str, Any]:
        """The fields of a `Case`, an equal share each."""
        return {
            "evaluations": (self.model.evaluations - self.before[0]) // cases,
            "gradients": (self.model.gradients - self.before[1]) // cases,
            "seconds": (time.perf_counter() - self.started) / cases,
        }


def candidate(
    model: AttackedModel, losses: SlotLosses, ids: Sequence[int], loss: float
) -> Candidate:
    """The text of a slot's ids, with the loss on the ids that the text is encoded to."""
    prompt = losses.prompt
    text = prompt.text(ids)
    if prompt.survives(ids):
        return Candidate(text, loss, loss)
    return Candidate(text, loss, model.losses_of_texts([text], prompt.target)[0])


def finished(
    model: AttackedModel,
    slot: SlotLosses,
    behaviour: str,
    number: int,
    best: Best,
    last: Best,
    **fields: Any,
) -> Case:
    """The test case of a white-box attack."""
    prompt = slot.prompt
    notes = {
        "prefix_cache": slot.cache is not None,
        "batch_size": slot.batch_size,
        "tokens": len(best.ids),
        **fields.pop("notes", {}),
    }
    return Case(
        behaviour,
        number,
        candidate(model, slot, best.ids, best.loss),
        candidate(model, slot, last.ids, last.loss),
        same_ids=prompt.survives(best.ids),
        notes=notes,
        **fields,
    )


def random_slots(
    model: AttackedModel, prompt: AttackedPrompt, rows: int, tokens: int, seed: int
) -> torch.Tensor:
    """[rows, tokens] ids drawn evenly from the usable tokens, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    allowed = model.vocabulary.allowed(tokens, ascii_only=False, opens=prompt.opens)
    drawn = [
        torch.multinomial(mask.double(), rows, replacement=True, generator=generator)
        for mask in allowed
    ]
    return torch.stack(drawn, dim=1)
