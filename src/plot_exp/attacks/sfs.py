"""SFS, stochastic few-shot: sample prompts, rank them by the target's loss, show the best ones.

Perez et al. 2022, arXiv 2202.03286, section 3.1, with the loss of a target string as in HarmBench.
"""

from __future__ import annotations

from random import Random

from plot_exp.attacks.asking import first_line, question, user_turn
from plot_exp.attacks.base import Attack, Candidate, Case, seed_of
from plot_exp.attacks.finish import Meter
from plot_exp.attacks.model import AttackedModel
from plot_exp.config.attacks import SFSConfig
from plot_exp.data.behaviours import Behaviour
from plot_exp.generators.base import Generator, Sampling
from plot_exp.progress import Bar, silent


class SFS(Attack):
    """Black-box prompts from an attacker, ranked by the attacked model's loss."""

    name = "sfs"

    def __init__(
        self, model: AttackedModel, attacker: Generator, config: SFSConfig, seed: int
    ) -> None:
        self.model, self.attacker, self.config, self.seed = model, attacker, config, seed

    def attack(self, behaviour: Behaviour, bar: Bar = silent) -> list[Case]:
        """See `Attack`."""
        meter, config = Meter(self.model), self.config
        target = self.model.tokeniser.response_ids([behaviour.target])[0][:-1]
        pool: dict[str, float] = {}
        losses: list[float] = []
        dropped = {"duplicate": 0, "too short": 0}
        last = ""
        with self.model.attacked():
            for step in bar(range(config.rounds), f"sfs: {behaviour.id}", config.rounds):
                new = self._sample(behaviour, pool, step, dropped)
                turns = [user_turn(behaviour, line) for line in new]
                found = self.model.losses_of_texts(turns, target) if new else []
                pool |= dict(zip(new, found, strict=True))
                losses.append(min(pool.values(), default=float("inf")))
                last = new[-1] if new else last
        best = sorted(pool, key=lambda line: (pool[line], line))[: config.cases]
        cost = meter(max(len(best), 1))
        notes = {"attacker": self.attacker.name, "pool": len(pool), "dropped": dropped}
        return [
            Case(
                behaviour.id,
                number,
                self._candidate(behaviour, line, pool),
                self._candidate(behaviour, last, pool),
                losses=tuple(losses),
                notes=notes,
                **cost,
            )
            for number, line in enumerate(best)
        ]

    def _sample(
        self, behaviour: Behaviour, pool: dict[str, float], step: int, dropped: dict[str, int]
    ) -> list[str]:
        """New prompts of one round, without duplicates and short ones."""
        seed = seed_of(self.seed, self.name, behaviour.id, step)
        shots = sorted(pool, key=lambda line: (pool[line], line))[: self.config.shots]
        Random(seed).shuffle(shots)
        asked = [question(behaviour, shots)]
        answers = self.attacker(asked, self._sampling(seed), samples=self.config.samples)[0]
        new: dict[str, None] = {}
        for answer in answers:
            line = first_line(answer.text)
            if len(line) < self.config.shortest:
                dropped["too short"] += 1
            elif line in pool or line in new:
                dropped["duplicate"] += 1
            else:
                new[line] = None
        return list(new)

    def _sampling(self, seed: int) -> Sampling:
        config = self.config
        return Sampling(
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_new_tokens,
            seed=seed % 2**31,
            frequency_penalty=config.frequency_penalty,
            presence_penalty=config.presence_penalty,
        )

    @staticmethod
    def _candidate(behaviour: Behaviour, line: str, pool: dict[str, float]) -> Candidate:
        return Candidate(user_turn(behaviour, line), pool[line], pool[line])
