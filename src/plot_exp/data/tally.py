"""The count of what was kept and what was dropped or changed, by reason: nothing goes silently."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

from plot_exp.data.examples import Origin


@dataclass
class Tally:
    """Counts for one dataset, filled by its reader and later by tokenisation.

    Attributes:
        kept: examples that went on, by split name.
        dropped: examples that did not, by reason.
        changed: examples that went on after a named repair, by reason.
        examples: the first few origins for each reason, so that a person can look.
    """

    dataset: str
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    SHOWN_PER_REASON: ClassVar[int] = 3

    def keep(self, split: str, count: int = 1) -> None:
        """Counts examples that went on in `split`."""
        self.kept[split] += count

    def drop(self, reason: str, origin: Origin) -> None:
        """Counts an example that was left out, under a reason that a person can read."""
        self.dropped[reason] += 1
        self._remember(reason, origin)

    def change(self, reason: str, origin: Origin) -> None:
        """Counts an example that was repaired and kept."""
        self.changed[reason] += 1
        self._remember(reason, origin)

    def _remember(self, reason: str, origin: Origin) -> None:
        shown = self.examples.setdefault(reason, [])
        if len(shown) < self.SHOWN_PER_REASON:
            shown.append(str(origin))

    def as_dict(self) -> dict[str, object]:
        """Plain data for `metrics.json`, W&B and the report."""
        return {
            "dataset": self.dataset,
            "kept": dict(self.kept),
            "dropped": dict(self.dropped),
            "changed": dict(self.changed),
            "examples": dict(self.examples),
        }

    def lines(self) -> list[str]:
        """The tally as lines for the terminal."""
        kept = ", ".join(f"{count} {split}" for split, count in self.kept.items()) or "none"
        lines = [f"{self.dataset}: kept {kept}"]
        for verb, counts in (("dropped", self.dropped), ("changed", self.changed)):
            for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
                where = "; ".join(self.examples.get(reason, []))
                lines.append(f"  {verb} {count}: {reason} (for example {where})")
        return lines
