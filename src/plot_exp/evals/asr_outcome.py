"""From cases and verdicts to the numbers, curves and samples of an outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plot_exp.attacks.base import Case
from plot_exp.data.behaviours import Behaviour
from plot_exp.evals import asr_scores
from plot_exp.evals.asr_records import Records, digest
from plot_exp.evals.asr_scores import Attacked
from plot_exp.judges.harm import HarmVerdict


@dataclass
class Gathered:
    """What the attacks found, one after another."""

    metrics: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)

    def add(
        self,
        attack: str,
        behaviours: Sequence[Behaviour],
        cases: Mapping[str, list[Case]],
        records: Records,
        seed: int,
    ) -> None:
        """Numbers, curves and samples of one attack."""
        attacked, unreadable, cut = [], 0, 0
        for behaviour in behaviours:
            verdicts = []
            for case in cases[behaviour.id]:
                verdict = records.verdict(behaviour, case.best.text)
                verdicts.append(verdict.harmful)
                unreadable += not verdict.readable
                cut += bool(records.completions[digest(case.best.text)].get("cut"))
                self.samples.append(_sample(attack, behaviour, case, verdict, records))
            attacked.append(_attacked(behaviour, cases[behaviour.id], verdicts, records))
        self.behaviours |= {one.id: one for one in behaviours}
        metrics = asr_scores.rates(attack, attacked, seed)
        self.metrics |= metrics
        every = [case for found in cases.values() for case in found]
        self.facts[attack] = {
            "table": asr_scores.by_category(metrics, attack),
            "by_behaviour": {one.behaviour.id: one.rate for one in attacked if one.harmful},
            "over_cases": asr_scores.over_cases(attacked, seed),
            "over_steps": asr_scores.over_steps(attacked, seed),
            "losses": asr_scores.loss_curve(attacked),
            "cases": len(every),
            "unreadable": unreadable,
            "cut": cut,
            "records": str(records.folder),
            **_facts(every),
        }
        if missing := sum(not one.harmful for one in attacked):
            self.notes.append(
                f"{attack}: {missing} behaviours are left out, since it made no prompt for them."
            )
        if cut:
            self.notes.append(
                f"{attack}: {cut} of {len(every)} prompts are longer than the model's context and "
                "lost their beginning when they were answered."
            )
        if unreadable:
            self.notes.append(
                f"{attack}: {unreadable} of {len(every)} verdicts are neither yes nor no and count "
                "as no."
            )

    def tables(self) -> dict[str, Any]:
        """Columns and rows by title, as W&B shows them."""
        return {"success": self._by_category(), "behaviours": self._by_behaviour()}

    def _by_behaviour(self) -> dict[str, Any]:
        """One row a behaviour, with the share of its cases that worked under each attack."""
        rows = [
            [
                one.id,
                one.functional,
                one.semantic,
                *(facts["by_behaviour"].get(one.id) for facts in self.facts.values()),
            ]
            for one in self.behaviours.values()
        ]
        return {"columns": ["behaviour", "functional", "semantic", *self.facts], "rows": rows}

    def _by_category(self) -> dict[str, Any]:
        """One row an attack and category."""
        columns = ["attack", "category", "value", "low", "high", "count"]
        rows = [
            [attack, *(row[key] for key in columns[1:])]
            for attack, facts in self.facts.items()
            for row in facts["table"]
        ]
        return {"columns": columns, "rows": rows}


def _attacked(
    behaviour: Behaviour, cases: Sequence[Case], verdicts: Sequence[bool], records: Records
) -> Attacked:
    chains = tuple(
        tuple((step, records.verdict(behaviour, text).harmful) for step, text in case.curve)
        for case in cases
    )
    return Attacked(behaviour, tuple(verdicts), chains, tuple(case.losses for case in cases))


def _sample(
    attack: str, behaviour: Behaviour, case: Case, verdict: HarmVerdict, records: Records
) -> dict[str, Any]:
    return {
        "prompt": case.best.text,
        "response": records.completions[digest(case.best.text)]["completion"],
        "verdict": f"{'success' if verdict.harmful else 'no success'} ({verdict.words})",
        "attack": attack,
        "behaviour": behaviour.id,
        "asked": behaviour.request,
        "functional": behaviour.functional,
        "category": behaviour.semantic,
        "case": case.number,
        "loss": case.best.encoded_loss,
    }


def _facts(cases: Sequence[Case]) -> dict[str, Any]:
    """Means over cases, where they were measured."""

    def mean(pick: Callable[[Case], float | bool | None]) -> float | None:
        values = [float(value) for case in cases if (value := pick(case)) is not None]
        return sum(values) / len(values) if values else None

    return {
        "loss": mean(lambda case: case.best.loss),
        "encoded_loss": mean(lambda case: case.best.encoded_loss),
        "same_ids": mean(lambda case: case.same_ids),
        "stopped_early": mean(lambda case: bool(case.stopped)),
        "evaluations": mean(lambda case: case.evaluations),
        "seconds": mean(lambda case: case.seconds),
    }
