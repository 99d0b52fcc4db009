"""HH-RLHF by a reward model: how good the responses are, and how often they beat the reference's.

Bai et al. 2022 (arXiv 2204.05862) for the prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from plot_exp.config.benchmarks import RewardConfig
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.overlap import prompt_hash
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError
from plot_exp.evals.agreement import agreement
from plot_exp.evals.base import CannotRunError, Outcome, Subject, Tools, Workspace
from plot_exp.evals.hh_prompts import read_pairs
from plot_exp.evals.published import digest
from plot_exp.evals.record import Record
from plot_exp.evals.reward_scores import Rewarded, scores
from plot_exp.evals.selection import spread
from plot_exp.generators.base import Completion, Generator, Sampling
from plot_exp.judges.reward import Reward, RewardJudge
from plot_exp.models.adapters import has_adapter
from plot_exp.models.identity import model_identity
from plot_exp.models.policy import Policy
from plot_exp.progress import Bar

SEED = 0


def build(settings: RewardConfig, tools: Tools) -> RewardBenchmark:
    """See `Benchmark`.

    Raises:
        CannotRunError: there are no data.
        UserError: a file cannot be used.
    """
    tally = Tally("HH-RLHF test")
    examples, pairs = read_examples(settings, tally)
    return RewardBenchmark(
        examples,
        spread(pairs, lambda pair: pair.category, settings.agreement, SEED + 1),
        partial(_open_judge, settings),
        settings.model,
        _judge_identity(settings),
        Sampling(settings.temperature, settings.top_p, settings.max_new_tokens),
        _left_out(tally),
    )


def read_examples(
    settings: RewardConfig, tally: Tally | None = None
) -> tuple[list[PreferenceExample], list[PreferenceExample]]:
    """The examples whose prompts are answered, and all pairs that they are chosen from.

    Raises:
        UserError: a file cannot be used.
    """
    pairs = read_pairs(settings.path, settings.subset, tally or Tally("HH-RLHF test"))
    return spread(pairs, lambda pair: pair.category, settings.limit, SEED), pairs


def _left_out(tally: Tally) -> tuple[str, ...]:
    counts = [f"{count} {reason}" for reason, count in sorted(tally.dropped.items())]
    return (f"Test pairs left out: {'; '.join(counts)}.",) if counts else ()


def _open_judge(settings: RewardConfig) -> RewardJudge:
    from plot_exp.models.reward_model import load_reward_model

    model, tokenizer = load_reward_model(
        settings.model, dtype=settings.dtype, revision=settings.revision
    )
    return RewardJudge(
        model,
        tokenizer,
        batch_size=settings.batch_size,
        form=settings.form,
        max_length=settings.max_length,
    )


def _judge_identity(settings: RewardConfig) -> str:
    weights = model_identity(settings.model, settings.revision)
    return "\x1f".join(map(str, (weights, settings.form, settings.max_length, settings.dtype)))


@dataclass
class RewardBenchmark:
    """See `Benchmark`.

    Attributes:
        examples: whose prompts are answered; their category is the subset.
        labelled: pairs that tell how often the reward model sides with people; may be empty.
        open_judge: loads the reward model; UserError where it cannot.
        judge_name: the reward model's hub id or directory.
        judge_identity: what tells its weights and its reading of dialogues from others'.
        notes: what was left out of the data.
    """

    examples: Sequence[PreferenceExample]
    labelled: Sequence[PreferenceExample]
    open_judge: Callable[[], RewardJudge]
    judge_name: str
    judge_identity: str
    sampling: Sampling
    notes: Sequence[str] = ()
    name: str = "reward"
    _judge: RewardJudge | None = field(default=None, repr=False)
    _agreement: dict[str, float] | None = field(default=None, repr=False)
    _reference: dict[str, tuple[str, float | None]] | None = field(default=None, repr=False)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        content = [prompt_hash(one.prompt) for one in (*self.examples, *self.labelled)]
        return {
            "judge": self.judge_identity,
            "sampling": asdict(self.sampling),
            "agreement": len(self.labelled),
            "data": digest(content),
        }

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`."""
        judge = self._opened()
        answers = self._answers(subject.generator, workspace, "answers.jsonl")
        with judge.at(_device(subject)):
            rewards = self._rewards(judge, answers, workspace, "rewards.jsonl")
            labels = self._agreement_of(judge, workspace.bar)
        reference = self._references(judge, subject, answers, rewards, workspace)
        rewarded = []
        for place, example in enumerate(self.examples):
            key = str(place)
            other = reference.get(key, (None, None))
            reward = rewards[key]["reward"]
            rewarded.append(Rewarded(example.category, answers[key]["text"], reward, *other))
        found = scores(rewarded) | labels
        shortened = sum(rewards[str(place)]["shortened"] for place in range(len(rewarded)))
        found["shortened"] = float(shortened)
        metrics = {f"reward/{key}": value for key, value in found.items()}
        return Outcome(metrics, self._samples(rewarded), self._notes(subject, shortened))

    def _opened(self) -> RewardJudge:
        if self._judge is None:
            try:
                self._judge = self.open_judge()
            except UserError as error:
                raise CannotRunError(str(error)) from error
        return self._judge

    def _answers(self, generator: Generator, workspace: Workspace, file: str) -> Record:
        answers = Record(workspace.folder / file)
        waiting = [place for place in range(len(self.examples)) if place not in answers]

        def write(place: int, completions: list[Completion]) -> None:
            row = {"text": completions[0].text, "finish": completions[0].finish}
            answers.add(waiting[place], row)

        generator(
            [self.examples[place].prompt for place in waiting],
            replace(self.sampling, seed=workspace.seed),
            bar=workspace.bar,
            label="answering HH-RLHF",
            each=write,
        )
        return answers

    def _rewards(
        self, judge: RewardJudge, answers: Record, workspace: Workspace, file: str
    ) -> Record:
        rewards = Record(workspace.folder / file)
        waiting = [place for place in range(len(self.examples)) if place not in rewards]

        def write(place: int, reward: Reward) -> None:
            row = {"reward": reward.value, "shortened": reward.shortened}
            rewards.add(waiting[place], row)

        dialogues = [(self.examples[place].prompt, answers[place]["text"]) for place in waiting]
        judge(dialogues, bar=workspace.bar, label="rewarding responses", each=write)
        return rewards

    def _references(
        self,
        judge: RewardJudge,
        subject: Subject,
        answers: Record,
        rewards: Record,
        workspace: Workspace,
    ) -> dict[str, tuple[str, float | None]]:
        """The reference's responses and rewards by place, the same for every subject of a run."""
        if subject.reference is None or subject.local is None:
            return {}
        if self._reference is None:
            with subject.reference.live() as policy:
                if not _alike(subject.local.policy, policy):
                    generator = replace(subject.local, policy=policy, name="reference")
                    answers = self._answers(generator, workspace, "reference_answers.jsonl")
                    with judge.at(_device(subject)):
                        rewards = self._rewards(
                            judge, answers, workspace, "reference_rewards.jsonl"
                        )
            self._reference = {
                key: (answers[key]["text"], rewards[key]["reward"]) for key in rewards
            }
        return self._reference

    def _agreement_of(self, judge: RewardJudge, bar: Bar) -> dict[str, float]:
        if not self.labelled:
            return {}
        if self._agreement is None:
            self._agreement = agreement(
                self.labelled,
                lambda dialogues: [
                    one.value for one in judge(dialogues, bar=bar, label="asking about labels")
                ],
            )
        return self._agreement

    def _samples(self, rewarded: Sequence[Rewarded]) -> list[dict[str, Any]]:
        return [
            {
                "prompt": [asdict(message) for message in example.prompt],
                "response": one.response,
                "verdict": "no reward" if one.reward is None else f"{one.reward:.3f}",
                "category": one.subset,
                "origin": str(example.origin),
                "reward": one.reward,
                "reference_response": one.reference_response,
                "reference_reward": one.reference_reward,
            }
            for example, one in zip(self.examples, rewarded, strict=True)
        ]

    def _notes(self, subject: Subject, shortened: int) -> list[str]:
        notes = [
            f"Reward: {len(self.examples)} prompts of HH-RLHF, scored by {self.judge_name}.",
            *self.notes,
        ]
        if subject.reference is None or subject.local is None:
            notes.append("No reference policy at hand: reward/win_rate is left out.")
        if shortened:
            notes.append(f"{shortened} dialogues were too long for the reward model and cut.")
        return notes


def _device(subject: Subject) -> torch.device:
    if subject.local is not None:
        return subject.local.policy.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _alike(subject: Policy, reference: Policy) -> bool:
    """Whether two policies answer alike by construction, so that one need not be asked.

    An adapter may be switched off in one of them, which its weights do not show.
    """
    if has_adapter(subject.model) or has_adapter(reference.model):
        return False
    if subject is reference:
        return True
    mine, theirs = subject.state_dict(), reference.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[key].to(tensor.device)) for key, tensor in mine.items()
    )
