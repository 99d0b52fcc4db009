"""Training prompts that the benchmarks of `eval` ask too: counted, and left out on request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plot_exp.config.schema import Config
from plot_exp.data.examples import PreferenceExample, Split
from plot_exp.data.overlap import prompt_hash
from plot_exp.data.tally import Tally
from plot_exp.evals.asked import asked_prompts

KEPT = "(kept; dataset.remove_overlap=true leaves it out)"


@dataclass(frozen=True)
class Leakage:
    """What a run's training prompts are compared with.

    Attributes:
        asked: the hashes of the prompts of each benchmark.
        remove: training examples with such a prompt are left out.
    """

    asked: dict[str, frozenset[str]] = field(default_factory=dict)
    remove: bool = False

    @classmethod
    def of(cls, config: Config) -> Leakage:
        """Before a run: from the benchmarks that `eval` names.

        Raises:
            UserError: a benchmark's file cannot be used.
        """
        return cls(asked_prompts(config.eval), config.dataset.remove_overlap)

    @classmethod
    def of_run(cls, run_dir: Path) -> Leakage:
        """What a run left out, whatever `eval` is now."""
        try:
            facts = json.loads((run_dir / "data.json").read_text(encoding="utf-8"))
            removed = facts["overlap"]["removed_prompts"]
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        return cls({name: frozenset(hashes) for name, hashes in removed.items()}, True)

    def apart(self, split: Split, tallies: Sequence[Tally] = ()) -> Split:
        """The split without what is to be removed; both is counted under its reason."""
        by_name = {tally.dataset: tally for tally in tallies}
        kept = []
        for example in split.train:
            if names := self._asked_by(example):
                reason = f"the prompt is also asked by {' and '.join(names)}"
                if tally := by_name.get(example.dataset):
                    if self.remove:
                        tally.keep("train", -1)
                        tally.drop(reason, example.origin)
                    else:
                        tally.change(f"{reason} {KEPT}", example.origin)
                if self.remove:
                    continue
            kept.append(example)
        return Split(kept, split.validation)

    def facts(self, train: Sequence[PreferenceExample]) -> dict[str, Any]:
        """For data.json, from the training examples before any was left out.

        `benchmarks` counts, by name, the prompts asked and the training examples that have one;
        `removed_prompts` are the hashes of those that were left out.
        """
        hashes = [prompt_hash(example.prompt) for example in train]
        counts = {
            name: {"asked": len(asked), "examples": sum(one in asked for one in hashes)}
            for name, asked in self.asked.items()
        }
        removed = {name: sorted(asked.intersection(hashes)) for name, asked in self.asked.items()}
        return {"benchmarks": counts, **({"removed_prompts": removed} if self.remove else {})}

    def _asked_by(self, example: PreferenceExample) -> list[str]:
        if not self.asked:
            return []
        own = prompt_hash(example.prompt)
        return [name for name, asked in self.asked.items() if own in asked]
