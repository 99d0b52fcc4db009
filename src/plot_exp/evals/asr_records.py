"""What an attack has done so far, on disk: cases, completions, verdicts; each written as it comes.

The folder depends on the attacked weights and on what the attack is, not on which behaviours are
attacked nor on the judge: a larger limit or another judge goes on from what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plot_exp.attacks.base import Case
from plot_exp.data.behaviours import Behaviour
from plot_exp.evals.record import Record
from plot_exp.judges.harm import HarmVerdict


def digest(content: object) -> str:
    """16 hexadecimal digits of plain data."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:16]


def behaviour_key(behaviour: Behaviour) -> str:
    """The behaviour's id, and what it says: a changed request is another one."""
    said = [behaviour.request, behaviour.target]
    return f"{behaviour.id} {digest(said)}"


class Records:
    """The three files of one attack on one model.

    Args:
        folder: of this attack, its settings and the attacked weights.
        completion: what completions depend on beside their prompts.
        judge: what verdicts depend on beside their completions.
    """

    def __init__(
        self, folder: Path, completion: Mapping[str, Any], judge: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        written, judged = digest(completion)[:8], digest(judge)[:8]
        self.cases = Record(folder / "cases.jsonl")
        self.completions = Record(folder / f"completions-{written}.jsonl")
        self.verdicts = Record(folder / f"verdicts-{written}-{judged}.jsonl")

    def add_cases(self, behaviour: Behaviour, cases: list[Case]) -> None:
        """All cases of a behaviour, which is then done."""
        rows = [case.as_row() for case in cases]
        self.cases.add(behaviour_key(behaviour), {"cases": rows})

    def cases_of(self, behaviour: Behaviour) -> list[Case]:
        """The cases that were added."""
        return [Case.from_row(row) for row in self.cases[behaviour_key(behaviour)]["cases"]]

    def verdict(self, behaviour: Behaviour, text: str) -> HarmVerdict:
        """The verdict on the completion of a prompt."""
        row = self.verdicts[verdict_key(behaviour, text)]
        return HarmVerdict(row["harmful"], row["readable"], row["words"])


def verdict_key(behaviour: Behaviour, text: str) -> str:
    """Of the completion of a prompt, for one behaviour."""
    return f"{behaviour_key(behaviour)} {digest(text)}"
