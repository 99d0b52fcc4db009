"""GCG, greedy coordinate gradient: Zou et al. 2023, arXiv 2307.15043, algorithm 1.

Each step draws swaps of one token from those that the gradient favours at each position, takes the
exact loss of all that survive being written as text and read again, and keeps the best of them,
whether or not it improves on what was there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from plot_exp.attacks.base import Attack, Case, seed_of
from plot_exp.attacks.finish import Best, Meter, finished
from plot_exp.attacks.model import AttackedModel, SlotLosses
from plot_exp.attacks.prompt import AttackedPrompt
from plot_exp.config.attacks import GCGConfig
from plot_exp.data.behaviours import Behaviour
from plot_exp.files import write_json
from plot_exp.judges.refusal import is_refusal
from plot_exp.progress import Bar, silent

# Draws of a step before it is given up because no swap survives encoding.
DRAWS = 10
Answer = Callable[[str, int], str]


@dataclass
class State:
    """An unfinished case: together with the seed, all that the next step depends on."""

    ids: list[int]
    best: list[int]
    loss: float = float("inf")
    best_loss: float = float("inf")
    step: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[tuple[int, str]] = field(default_factory=list)
    batch_size: int | None = None
    stuck: int = 0
    evaluations: int = 0
    gradients: int = 0
    seconds: float = 0.0
    stopped: str = ""


class GCG(Attack):
    """White-box, one swap at a time.

    Args:
        answer: (user turn, new tokens) to the model's greedy answer; for the early stop.
        folder: where unfinished cases are kept; None keeps none.
    """

    name = "gcg"

    def __init__(
        self,
        model: AttackedModel,
        config: GCGConfig,
        seed: int,
        answer: Answer,
        folder: Path | None = None,
    ) -> None:
        self.model, self.config, self.seed = model, config, seed
        self.answer, self.folder = answer, folder

    def attack(self, behaviour: Behaviour, bar: Bar = silent) -> list[Case]:
        """See `Attack`."""
        with self.model.attacked():
            return [self._case(behaviour, number, bar) for number in range(self.config.cases)]

    def _case(self, behaviour: Behaviour, number: int, bar: Bar) -> Case:
        prompt = self.model.prompt(behaviour, self.config.initial)
        path = self._path(behaviour, number)
        state = _read(path) or State(list(prompt.slot), list(prompt.slot))
        losses = SlotLosses(
            self.model,
            prompt,
            batch_size=state.batch_size or self.config.batch_size,
            cached=self.config.prefix_cache,
        )
        meter, earlier, saved = Meter(self.model), asdict(state), monotonic()
        steps = range(state.step, self.config.steps)
        for step in bar(steps, f"gcg: {behaviour.id}", len(steps)):
            if state.stopped:
                break
            self._step(state, losses, seed_of(self.seed, "gcg", behaviour.id, number, step))
            state.step = step + 1
            if state.step % self.config.check_every == 0 or state.step == self.config.steps:
                self._check(state, prompt)
            if path is not None and monotonic() - saved >= self.config.save_seconds:
                saved = monotonic()
                self._save(state, earlier, losses, meter, path)
        cost = meter()
        return finished(
            self.model,
            losses,
            behaviour.id,
            number,
            Best(tuple(state.best), state.best_loss),
            Best(tuple(state.ids), state.loss),
            losses=tuple(state.losses),
            curve=tuple(state.curve),
            stopped=state.stopped,
            notes={"steps_without_a_surviving_swap": state.stuck},
            **{key: earlier[key] + value for key, value in cost.items()},
        )

    def _step(self, state: State, losses: SlotLosses, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        gradient, loss = losses.gradient(state.ids)
        if state.step == 0:
            state.loss = state.best_loss = loss
        favoured = self._favoured(gradient.float().cpu(), losses.prompt)
        for _ in range(DRAWS):
            rows = self._swaps(torch.tensor(state.ids), favoured, generator)
            kept = torch.tensor(losses.prompt.survive(rows.tolist()))
            if bool(kept.any()):
                rows = rows[kept]
                break
        else:
            state.stuck += 1
            state.losses.append(state.loss)
            return
        found = losses.of_ids(rows)
        place = int(found.argmin())
        state.ids, state.loss = rows[place].tolist(), float(found[place])
        state.losses.append(state.loss)
        if state.loss < state.best_loss:
            state.best, state.best_loss = state.ids, state.loss

    def _favoured(self, gradient: Tensor, prompt: AttackedPrompt) -> list[Tensor]:
        """For each position the allowed tokens of the most negative gradient, at most `top_k`."""
        allowed = self.model.vocabulary.allowed(
            len(gradient), ascii_only=self.config.ascii, opens=prompt.opens
        )
        scores = gradient.masked_fill(~allowed, float("inf"))
        order = scores.topk(min(self.config.top_k, scores.shape[1]), dim=1, largest=False)
        return [
            row[values < float("inf")]
            for row, values in zip(order.indices, order.values, strict=True)
        ]

    def _swaps(self, ids: Tensor, favoured: list[Tensor], generator: torch.Generator) -> Tensor:
        """[width, S] copies of the ids, each with one position set to one of its favoured."""
        width = self.config.width
        rows = ids.repeat(width, 1)
        positions = torch.randint(len(ids), (width,), generator=generator)
        draws = torch.rand(width, generator=generator, dtype=torch.float64)
        sizes = torch.tensor([len(choices) for choices in favoured])[positions]
        places = (draws * sizes).long().tolist()
        for row, (position, place) in enumerate(zip(positions.tolist(), places, strict=True)):
            rows[row, position] = favoured[position][place]
        return rows

    def _check(self, state: State, prompt: AttackedPrompt) -> None:
        """Notes the best text so far, and stops where the model already complies with it."""
        text = prompt.text(state.best)
        state.curve.append((state.step, text))
        if state.step < self.config.steps and state.best_loss <= self.config.stop_loss:
            answer = self.answer(text, self.config.check_tokens)
            if not is_refusal(answer):
                state.stopped = f"loss {state.best_loss:.4f} and no refusal at step {state.step}"

    def _path(self, behaviour: Behaviour, number: int) -> Path | None:
        if self.folder is None:
            return None
        named = (behaviour.id, behaviour.request, behaviour.target, number)
        return self.folder / f"{seed_of(*named):016x}.json"

    def _save(
        self, state: State, earlier: dict[str, float], losses: SlotLosses, meter: Meter, path: Path
    ) -> None:
        cost = {key: earlier[key] + value for key, value in meter().items()}
        write_json(path, asdict(state) | cost | {"batch_size": losses.batch_size})


def _read(path: Path | None) -> State | None:
    if path is None or not path.is_file():
        return None
    row = json.loads(path.read_text(encoding="utf-8"))
    row["curve"] = [(step, text) for step, text in row["curve"]]
    for key in ("loss", "best_loss"):
        row[key] = float("inf") if row[key] is None else row[key]
    return State(**row)
