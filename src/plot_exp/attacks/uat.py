"""UAT, universal adversarial triggers: Wallace et al. 2019, arXiv 1908.07125, equation 2.

Position after position, HotFlip's first-order estimate names a few tokens; the one with the lowest
exact loss is taken if it improves. A step is a pass over all positions, as in HarmBench.
"""

from __future__ import annotations

import torch

from plot_exp.attacks.base import Attack, Case
from plot_exp.attacks.finish import Best, Meter, finished
from plot_exp.attacks.model import AttackedModel, SlotLosses
from plot_exp.config.attacks import UATConfig
from plot_exp.data.behaviours import Behaviour
from plot_exp.progress import Bar, silent


class UAT(Attack):
    """White-box, coordinate descent; it draws nothing, so that all its cases are equal."""

    name = "uat"

    def __init__(self, model: AttackedModel, config: UATConfig) -> None:
        self.model, self.config = model, config

    def attack(self, behaviour: Behaviour, bar: Bar = silent) -> list[Case]:
        """See `Attack`."""
        with self.model.attacked():
            return [self._case(behaviour, number, bar) for number in range(self.config.cases)]

    def _case(self, behaviour: Behaviour, number: int, bar: Bar) -> Case:
        meter = Meter(self.model)
        prompt = self.model.prompt(behaviour, self.config.initial)
        losses = SlotLosses(self.model, prompt)
        best = Best(prompt.slot)
        trajectory: list[float] = []
        stopped = ""
        without_gain = 0
        for step in bar(range(self.config.steps), f"uat: {behaviour.id}", self.config.steps):
            for position in range(len(prompt.slot)):
                gain = self._flip(best, position, losses)
                without_gain = 0 if gain else without_gain + 1
                if without_gain >= len(prompt.slot):
                    stopped = f"no position gained anything, in step {step + 1}"
                    break
            trajectory.append(best.loss)
            if stopped:
                break
        return finished(
            self.model,
            losses,
            behaviour.id,
            number,
            best,
            best,
            losses=tuple(trajectory),
            stopped=stopped,
            **meter(),
        )

    def _flip(self, best: Best, position: int, losses: SlotLosses) -> bool:
        """Tries the candidates of one position; whether one of them is better."""
        gradient, loss = losses.gradient(best.ids)
        best.loss = min(best.loss, loss)
        allowed = self.model.vocabulary.allowed(
            len(best.ids), ascii_only=False, opens=losses.prompt.opens
        )[position]
        (choices,) = allowed.nonzero(as_tuple=True)
        scores = gradient[position].float().cpu()[choices]
        count = min(self.config.candidates, len(choices))
        tokens = choices[scores.topk(count, largest=False).indices]
        rows = torch.tensor([list(best.ids)] * len(tokens))
        rows[:, position] = tokens
        found = losses.of_ids(rows)
        place = int(found.argmin())
        return best.offer(rows[place].tolist(), float(found[place]))
