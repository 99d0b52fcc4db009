"""Attack success rate: six red-team attacks, the model's answers, and a judge's verdicts.

After HarmBench (arXiv 2402.04249).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plot_exp.attacks.base import Attack, Case
from plot_exp.config.attacks import ASRConfig
from plot_exp.data.behaviours import Behaviour, choose, load
from plot_exp.data.examples import Message
from plot_exp.data.tally import Tally
from plot_exp.evals.asr_models import Attackers, Judges, attack_of
from plot_exp.evals.asr_outcome import Gathered
from plot_exp.evals.asr_records import Records, digest, verdict_key
from plot_exp.evals.base import CannotRunError, Outcome, Subject, Tools, Workspace
from plot_exp.generators.base import Completion, Sampling
from plot_exp.judges.harm import HarmVerdict, Question
from plot_exp.progress import Bar

# What changes how long an attack takes and nothing else.
INCIDENTAL = ("save_seconds", "batch_size", "prefix_cache")
UNFINISHED = "unfinished"


def build(settings: ASRConfig, tools: Tools) -> AttackSuccess:
    """The benchmark for `eval.asr`.

    Raises:
        UserError: the behaviours' files, the classifier's prompts or a setting cannot be used.
        CannotRunError: the judge is an endpoint, and none is named.
    """
    tally = Tally(settings.behaviours)
    found = load(
        settings.behaviours,
        settings.path,
        split=settings.split,
        texts=settings.copyright.texts,
        tally=tally,
    )
    behaviours = choose(
        found,
        functional=settings.functional,
        semantic=settings.semantic,
        limit=settings.limit,
        seed=settings.seed,
        tally=tally,
    )
    judges, attackers = Judges(settings, tools), Attackers(settings, tools)
    return AttackSuccess(settings, behaviours, tally, judges, attackers, tools.cache_dir)


@dataclass
class AttackSuccess:
    """See `Benchmark`.

    Attributes:
        tally: what was left out of the behaviours, and why.
        cache_dir: cases, completions and verdicts are kept below it, so that every run shares what
            was done to the same weights; `facts` name the folders.
    """

    config: ASRConfig
    behaviours: Sequence[Behaviour]
    tally: Tally
    judges: Judges
    attackers: Attackers
    cache_dir: Path
    name: str = "asr"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        said = [[one.id, one.request, one.target, one.source] for one in self.behaviours]
        plain = self.config.model_dump(mode="json")
        return {
            "attacks": {name: self._attack_settings(name) for name in self.config.attacks},
            "max_new_tokens": self.config.max_new_tokens,
            "judge": plain["judge"] | {"endpoint": None, **self.judges.settings},
            "copyright": plain["copyright"],
            "data": digest(said),
        }

    def _attack_settings(self, attack: str) -> dict[str, Any]:
        found = getattr(self.config, attack).model_dump(mode="json", exclude=set(INCIDENTAL))
        if attack in ("zero_shot", "sfs"):
            found["attacker"] = self.attackers.name
        return {"seed": self.config.seed, **found}

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`."""
        outcome = Gathered()
        for name in self.config.attacks:
            try:
                folder = self._folder(name, subject) / UNFINISHED
                attack = attack_of(name, self.config, self.attackers, subject, folder)
            except CannotRunError as error:
                outcome.notes.append(f"{name}: {error}")
                continue
            self._run_attack(attack, subject, workspace, outcome)
        if not outcome.metrics:
            raise CannotRunError("; ".join(outcome.notes) or "eval.asr.attacks names no attack")
        return self._outcome(outcome)

    def _folder(self, attack: str, subject: Subject) -> Path:
        local = subject.local
        dtype = str(next(local.policy.parameters()).dtype) if local else ""
        made_of = [subject.identity, dtype, attack, self._attack_settings(attack)]
        return self.cache_dir / "asr" / f"{attack}-{digest(made_of)}"

    def _run_attack(
        self, attack: Attack, subject: Subject, workspace: Workspace, outcome: Gathered
    ) -> None:
        judge = {"judge": self.judges.settings, "copyright": self.config.copyright.model_dump()}
        completion = {"max_new_tokens": self.config.max_new_tokens}
        records = Records(self._folder(attack.name, subject), completion, judge)
        waiting = [one for one in self.behaviours if not self._attacked(one, records)]
        if waiting:
            attack.run(waiting, records.add_cases, workspace.bar)
        shutil.rmtree(records.folder / UNFINISHED, ignore_errors=True)
        cases = {one.id: records.cases_of(one) for one in self.behaviours}
        self._complete(cases, subject, records, workspace.bar)
        self._judge(cases, subject, records, workspace.bar)
        outcome.add(attack.name, self.behaviours, cases, records, self.config.seed)

    @staticmethod
    def _attacked(behaviour: Behaviour, records: Records) -> bool:
        try:
            records.cases_of(behaviour)
        except KeyError:
            return False
        return True

    def _complete(
        self, cases: Mapping[str, list[Case]], subject: Subject, records: Records, bar: Bar
    ) -> None:
        """The model's greedy answer to every prompt that has none yet."""
        texts = [
            text
            for text in dict.fromkeys(text for found in cases.values() for text in _asked(found))
            if digest(text) not in records.completions
        ]

        def each(place: int, found: list[Completion]) -> None:
            answer = found[0]
            row = {
                "completion": answer.text,
                "finish": answer.finish,
                "cut": answer.cut,
                "prompt": texts[place],
            }
            records.completions.add(digest(texts[place]), row)

        if texts:
            subject.generator(
                [[Message("user", text)] for text in texts],
                Sampling(max_new_tokens=self.config.max_new_tokens),
                bar=bar,
                label="answering attacked prompts",
                each=each,
            )

    def _judge(
        self, cases: Mapping[str, list[Case]], subject: Subject, records: Records, bar: Bar
    ) -> None:
        """A verdict on every completion that has none yet; copied texts are compared, not asked."""
        asked: dict[bool, list[tuple[str, Question]]] = {False: [], True: []}
        for behaviour in self.behaviours:
            for text in dict.fromkeys(_asked(cases[behaviour.id])):
                key = verdict_key(behaviour, text)
                if key not in records.verdicts:
                    completion = records.completions[digest(text)]["completion"]
                    question = Question(behaviour, completion)
                    asked[behaviour.functional == "copyright"].append((key, question))
        for copied, pairs in asked.items():
            if not pairs:
                continue
            judge = self.judges.copyright if copied else self.judges.open(subject)

            def told(
                place: int, verdict: HarmVerdict, pairs: list[tuple[str, Question]] = pairs
            ) -> None:
                records.verdicts.add(pairs[place][0], asdict(verdict))

            judge([question for _, question in pairs], told, bar)

    def _outcome(self, found: Gathered) -> Outcome:
        notes = [
            f"Attack success on {len(self.behaviours)} behaviours of {self.config.behaviours}, "
            f"judged by {self.judges.name}.",
            *self.tally.lines()[1:],
            *found.notes,
        ]
        if self.config.judge.name == "refusal":
            notes.insert(
                1,
                "Refusal substrings say only that an answer does not refuse: this is a looser "
                "number than the published attack success rates, and does not compare with them.",
            )
        facts = {
            "judge": self.judges.name,
            "judged_by": self.config.judge.name,
            "behaviours": self.config.behaviours,
            "tally": self.tally.as_dict(),
            "attacks": found.facts,
            "tables": found.tables(),
        }
        return Outcome(found.metrics, found.samples, [note.strip() for note in notes], facts)


def _asked(cases: Sequence[Case]) -> list[str]:
    """Every prompt that is answered and judged: the best ones, and those of the curves."""
    return [text for case in cases for text in (case.best.text, *(text for _, text in case.curve))]
