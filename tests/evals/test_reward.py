"""HH-RLHF by a reward model: every number by hand, the reference's answers asked for once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from plot_exp.config.benchmarks import RewardConfig
from plot_exp.config.endpoint import EndpointConfig
from plot_exp.config.model import ModelConfig
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.tally import Tally
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.evals.agreement import agreement, judge_agreement
from plot_exp.evals.base import CannotRunError, Subject, Tools, Workspace
from plot_exp.evals.hh_prompts import read_pairs
from plot_exp.evals.reward import RewardBenchmark, build
from plot_exp.evals.reward_scores import Rewarded, scores, sigmoid
from plot_exp.generators.base import Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.judges.alpaca import own_prompt
from plot_exp.judges.reward import RewardJudge
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy, freeze
from plot_exp.models.reward_model import load_reward_model

from reward_models import save_oasst
from scripted import Scripted


def test_the_numbers_by_hand() -> None:
    found = scores(
        [
            Rewarded("help", "long answer", 1.0, "short", 0.0),
            Rewarded("help", "same", -1.0, "same", -1.0),
            Rewarded("harm", "x", -2.0, "longer", 3.0),
            Rewarded("harm", "no number", None, "x", 1.0),
        ]
    )
    assert found["score"] == pytest.approx(-2 / 3)
    assert found["score/count"] == 3
    assert found["score/help"] == 0.0
    assert found["sigmoid"] == pytest.approx(100 * sum(map(sigmoid, (1, -1, -2))) / 3)
    assert found["win_rate"] == pytest.approx(50.0)
    assert found["win_rate/help"] == 75.0
    assert found["win_rate/harm/count"] == 1
    assert found["margin"] == pytest.approx(-4 / 3)
    assert found["length_gap"] == pytest.approx((6 + 0 - 5) / 3)
    assert found["margin/own_longer"] == 1.0
    assert found["margin/other_longer"] == -5.0
    assert found["matched_win_rate"] == 0.5
    assert (found["ties"], found["unscored"]) == (1, 1)
    assert found["score/low"] <= found["score"] <= found["score/high"]


def test_without_a_reference_there_is_no_win_rate() -> None:
    found = scores([Rewarded("help", "x", 1.0)])
    assert not any(key.startswith(("win_rate", "margin", "matched")) for key in found)


@pytest.mark.parametrize("value", [-1000.0, -3.0, 0.0, 3.0, 1000.0])
def test_the_sigmoid_never_overflows(value: float) -> None:
    assert sigmoid(value) == pytest.approx(0.5 * (1 + math.tanh(value / 2)))


def pair(example: Callable[..., PreferenceExample], place: int, **facts: Any) -> PreferenceExample:
    return example(f"prompt {place}", [f"good {place}", f"bad {place} and longer"], place, **facts)


def test_agreement_with_labelled_pairs_by_hand(example: Callable[..., PreferenceExample]) -> None:
    pairs = [pair(example, place, category="ab"[place % 2]) for place in range(6)]
    numbers: list[float | None] = [1, 0, 0, 1, 2, 2, 3, 1, 5, None, 0, 4]

    def score(dialogues: Sequence[Any]) -> list[float | None]:
        assert [response for _, response in dialogues[:2]] == ["good 0", "bad 0 and longer"]
        return numbers

    found = agreement(pairs, score)
    # Right, wrong, tie, right, unscored, wrong.
    assert found["agreement"] == pytest.approx(2.5 / 5)
    assert found["agreement/count"] == 5
    assert found["agreement/a"] == pytest.approx(1.5 / 2)
    assert found["agreement/b"] == pytest.approx(1 / 3)
    assert found["agreement_unscored"] == 1
    assert found["agreement_margin/other_longer"] == pytest.approx((1 - 1 + 0 + 2 - 4) / 5)


def test_a_judge_of_pairs_agrees_by_its_verdicts_whatever_the_order(
    example: Callable[..., PreferenceExample],
) -> None:
    pairs = [pair(example, place) for place in range(30)]

    def judged(prompt: Sequence[Any]) -> str:
        """Right but for the tenth pair; silent on the last."""
        text = prompt[-1].content
        if "prompt 29" in text:
            return "neither"
        good_first = text.index("good") < text.index("bad")
        return "m" if good_first != ("prompt 9\n" in text) else "M"

    judge = Scripted(judged)
    found = judge_agreement(pairs, judge, own_prompt(("m", "M")), seed=2)
    assert found["agreement"] == pytest.approx(28 / 29)
    assert found["agreement_unscored"] == 1
    assert found["agreement_margin/other_longer"] == pytest.approx((28 - 1) / 29)
    texts = [prompt[-1].content for prompt, _ in judge.asked]
    assert 5 < sum(text.index("good") < text.index("bad") for text in texts) < 25


def test_the_published_test_pairs_are_read_and_what_is_left_out_is_counted() -> None:
    if not os.environ.get("PLOT_EXP_DATA"):
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    tally = Tally("hh")
    pairs = read_pairs(None, None, tally)
    assert len(pairs) + tally.dropped.total() == 2312 + 1137 + 2749
    assert {one.category for one in pairs} == {
        "harmless-base",
        "helpful-online",
        "helpful-rejection-sampled",
    }
    assert all(one.prompt[-1].role == "user" for one in pairs)
    only = read_pairs(None, "helpful-online", Tally("hh"))
    assert {one.category for one in only} == {"helpful-online"}


def policy(folder: Path, seed: int | None = None) -> Policy:
    import torch

    found = Policy(load_model(ModelConfig(name=str(folder))))
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in found.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise, alpha=0.1)
    return freeze(found)


def subject(folder: Path, own: Policy, reference: Policy | None) -> Subject:
    tokeniser = ChatTokeniser(load_tokenizer(ModelConfig(name=str(folder))))
    return Subject(LocalGenerator(own, tokeniser, 4, name="mine"), "id", reference)


def bench(folder: Path, examples: Sequence[PreferenceExample]) -> RewardBenchmark:
    def open_judge() -> RewardJudge:
        return RewardJudge(*load_reward_model(str(folder)))

    return RewardBenchmark(
        examples, examples[:2], open_judge, "oasst", "judge", Sampling(max_new_tokens=6)
    )


@pytest.fixture
def judge_dir(tmp_path: Path) -> Path:
    save_oasst(tmp_path / "judge")
    return tmp_path / "judge"


def test_the_start_ties_with_itself_and_the_trained_is_compared_with_it(
    qwen_dir: Path,
    judge_dir: Path,
    tmp_path: Path,
    examples: list[PreferenceExample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    answer = LocalGenerator.__call__

    def counted(self: LocalGenerator, prompts: Any, *args: Any, **more: Any) -> Any:
        asked.extend([self.name] * len(prompts))
        return answer(self, prompts, *args, **more)

    monkeypatch.setattr(LocalGenerator, "__call__", counted)
    start, trained = policy(qwen_dir), policy(qwen_dir, seed=1)
    made = bench(judge_dir, examples)
    before = made.run(subject(qwen_dir, start, policy(qwen_dir)), Workspace(tmp_path / "before"))
    assert before.metrics["reward/win_rate"] == 50.0
    assert before.metrics["reward/ties"] == len(examples)
    assert before.metrics["reward/agreement/count"] == 2
    after = made.run(subject(qwen_dir, trained, policy(qwen_dir)), Workspace(tmp_path / "after"))
    # The reference was answered once: by the start itself.
    assert asked == ["mine"] * len(examples) * 2
    assert after.metrics["reward/score"] != before.metrics["reward/score"]
    for one, other in zip(after.samples, before.samples, strict=True):
        assert one["reference_response"] == other["response"]
        assert one["reference_reward"] == other["reward"]
    again = bench(judge_dir, examples).run(
        subject(qwen_dir, trained, policy(qwen_dir)), Workspace(tmp_path / "after")
    )
    assert again.metrics == after.metrics
    assert asked.count("reference") == len(examples)
    alone = RewardJudge(*load_reward_model(str(judge_dir)))(
        [(examples[0].prompt, after.samples[0]["response"])]
    )
    assert after.samples[0]["reward"] == pytest.approx(alone[0].value, abs=1e-5)


def test_no_reference_leaves_the_win_rate_out_and_says_so(
    qwen_dir: Path, judge_dir: Path, tmp_path: Path, examples: list[PreferenceExample]
) -> None:
    found = bench(judge_dir, examples).run(
        subject(qwen_dir, policy(qwen_dir), None), Workspace(tmp_path)
    )
    assert "reward/win_rate" not in found.metrics
    assert any("reward/win_rate is left out" in note for note in found.notes)
    assert {one["verdict"] for one in found.samples} != {"no reward"}


def test_a_reward_model_that_is_not_there_says_so_before_anything_is_generated(
    qwen_dir: Path, tmp_path: Path
) -> None:
    if not os.environ.get("PLOT_EXP_DATA"):
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    tools = Tools(tmp_path, 4, EndpointConfig(), lambda: [])
    made = build(RewardConfig(model=str(tmp_path / "none"), limit=9, agreement=6), tools)
    assert len(made.examples) == 9
    assert len({one.category for one in made.examples}) == 3
    assert len(made.labelled) == 6
    assert any("7 a response is empty" in note for note in made.notes)
    with pytest.raises(CannotRunError, match="could not be loaded"):
        made.run(subject(qwen_dir, policy(qwen_dir), None), Workspace(tmp_path / "w"))
    assert not (tmp_path / "w").exists()
