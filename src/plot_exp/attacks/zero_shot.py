"""Zero-Shot: another model writes the prompts, and the attacked model is not looked at.

Perez et al. 2022, arXiv 2202.03286, section 3.1, for a named behaviour as in HarmBench.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plot_exp.attacks.asking import first_line, question, user_turn
from plot_exp.attacks.base import Attack, Candidate, Case, seed_of
from plot_exp.config.attacks import ZeroShotConfig
from plot_exp.data.behaviours import Behaviour
from plot_exp.generators.base import Completion, Generator, Sampling
from plot_exp.progress import Bar, silent

# Times that a behaviour is asked about, where answers hold no line.
TRIES = 4


class ZeroShot(Attack):
    """Black-box, from an attacker's words alone."""

    name = "zero_shot"

    def __init__(self, attacker: Generator, config: ZeroShotConfig, seed: int) -> None:
        self.attacker, self.config, self.seed = attacker, config, seed

    def attack(self, behaviour: Behaviour, bar: Bar = silent) -> list[Case]:
        """See `Attack`."""
        found: list[Case] = []
        self.run([behaviour], lambda _, cases: found.extend(cases), bar)
        return found

    def run(
        self,
        behaviours: Sequence[Behaviour],
        record: Callable[[Behaviour, list[Case]], None],
        bar: Bar = silent,
    ) -> None:
        """All behaviours side by side; where answers hold no line, they are asked for again."""
        lines: dict[str, list[str]] = {one.id: [] for one in behaviours}
        waiting = list(behaviours)
        for turn in range(TRIES):
            asked = waiting

            def each(place: int, answers: list[Completion], asked: list[Behaviour] = asked) -> None:
                found = lines[asked[place].id]
                found += filter(None, (first_line(answer.text) for answer in answers))
                if len(found) >= self.config.cases:
                    record(asked[place], self._cases(asked[place], found))

            self.attacker(
                [question(one) for one in asked],
                self._sampling(turn),
                samples=self.config.cases,
                bar=bar,
                label="zero_shot: asking the attacker",
                each=each,
            )
            waiting = [one for one in asked if len(lines[one.id]) < self.config.cases]
            if not waiting:
                break
        for one in waiting:
            record(one, self._cases(one, lines[one.id]))

    def _sampling(self, turn: int) -> Sampling:
        config = self.config
        return Sampling(
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_new_tokens,
            seed=seed_of(self.seed, self.name, turn) % 2**31,
            frequency_penalty=config.frequency_penalty,
            presence_penalty=config.presence_penalty,
        )

    def _cases(self, behaviour: Behaviour, lines: Sequence[str]) -> list[Case]:
        return [
            Case(
                behaviour.id,
                number,
                Candidate(user_turn(behaviour, line)),
                notes={"attacker": self.attacker.name},
            )
            for number, line in enumerate(lines[: self.config.cases])
        ]
