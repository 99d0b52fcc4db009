"""What PEZ and GBDA share: several cases side by side, Adam with cosine decay, a gradient."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from plot_exp.attacks.base import Attack, Case, seed_of
from plot_exp.attacks.finish import Best, Meter, finished
from plot_exp.attacks.model import AttackedModel, SlotLosses
from plot_exp.attacks.prompt import AttackedPrompt
from plot_exp.config.attacks import INITIAL, GBDAConfig, PEZConfig
from plot_exp.data.behaviours import Behaviour
from plot_exp.progress import Bar, silent


class SoftAttack(Attack):
    """White-box, by gradient descent on a continuous stand-in for the tokens."""

    def __init__(self, model: AttackedModel, config: PEZConfig | GBDAConfig, seed: int) -> None:
        self.model, self.config, self.seed = model, config, seed

    @abstractmethod
    def begin(self, prompt: AttackedPrompt, seed: int) -> Tensor:
        """What is optimised, [cases, tokens, ...], fp32 on the model's device."""

    @abstractmethod
    def embed(self, variable: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """[cases, tokens, D] embeddings of this step, with their graph."""

    @abstractmethod
    def tokens(self, variable: Tensor) -> Tensor:
        """[cases, tokens] the ids that the variable stands for."""

    def attack(self, behaviour: Behaviour, bar: Bar = silent) -> list[Case]:
        """See `Attack`."""
        with self.model.attacked():
            return self._cases(behaviour, bar)

    def _cases(self, behaviour: Behaviour, bar: Bar) -> list[Case]:
        meter, config = Meter(self.model), self.config
        prompt = self.model.prompt(behaviour, INITIAL)
        losses = SlotLosses(self.model, prompt)
        seed = seed_of(self.seed, self.name, behaviour.id)
        generator = torch.Generator().manual_seed(seed)
        variable = self.begin(prompt, seed).requires_grad_(True)
        optimizer = torch.optim.Adam([variable], lr=config.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
        tracks = [_Track() for _ in range(config.cases)]
        for step in bar(range(config.steps), f"{self.name}: {behaviour.id}", config.steps):
            embeddings = self.embed(variable, step, generator)
            found = losses.of_embeddings(embeddings.to(self.model.table.dtype))
            optimizer.zero_grad()
            # Each case's own gradient: the sum does not make one case's step depend on the others.
            found.sum().backward(inputs=[variable])
            optimizer.step()
            schedule.step()
            self._follow(tracks, self.tokens(variable.detach()), losses)
        cost = meter(config.cases)
        return [
            finished(
                self.model,
                losses,
                behaviour.id,
                number,
                track.best,
                track.last,
                losses=tuple(track.losses),
                **cost,
            )
            for number, track in enumerate(tracks)
        ]

    @staticmethod
    def _follow(tracks: list[_Track], ids: Tensor, losses: SlotLosses) -> None:
        """Takes the exact loss of the cases whose tokens changed."""
        rows = [tuple(row) for row in ids.cpu().tolist()]
        changed = [place for place, row in enumerate(rows) if row != tracks[place].last.ids]
        if changed:
            exact = losses.of_ids(torch.tensor([rows[place] for place in changed])).tolist()
            for place, loss in zip(changed, exact, strict=True):
                tracks[place].last = Best(rows[place], loss)
                tracks[place].best.offer(rows[place], loss)
        for track in tracks:
            track.losses.append(track.last.loss)


class _Track:
    """The way of one case: exact losses of the tokens after each step."""

    def __init__(self) -> None:
        self.best, self.last = Best(()), Best(())
        self.losses: list[float] = []
