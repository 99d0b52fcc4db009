"""A generator whose prompts the processes of a run share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from plot_exp.generators.base import Completion, Each, Prompt, Sampling
from plot_exp.generators.local import GREEDY, LocalGenerator
from plot_exp.progress import Bar, silent
from plot_exp.training.world import World


@dataclass
class SharedGenerator(LocalGenerator):
    """Answers its share of the prompts; every process gets all answers.

    Attributes:
        world: the processes; all of them ask alike.
    """

    world: World = field(default_factory=World)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling = GREEDY,
        *,
        samples: int = 1,
        bar: Bar = silent,
        label: str = "generating",
        each: Each | None = None,
    ) -> list[list[Completion]]:
        """See `Generator`; `each` hears of this process's share."""
        share = self.world.share(prompts)
        with self.world.pace():
            own = super().__call__(
                share, sampling, samples=samples, bar=bar, label=label, each=each
            )
        return self.world.dealt(own)
