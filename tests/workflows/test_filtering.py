"""DEFT's filter acts on the training examples and says what it left out; who may train on what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.losses.composite import build
from plot_exp.progress import silent
from plot_exp.workflows.context import build_context, signed_difference
from plot_exp.workflows.filtering import filter_training
from plot_exp.workflows.prepare import Prepared, prepare
from plot_exp.workflows.reference import open_reference

WORDS = ["apples", "basket", "table", "idea", "answer", "safer", "morning", "map"]
PAIRS = [
    {"prompt": f"how many {word}?", "chosen": f"seven {word}", "rejected": f"no {word} there"}
    for word in WORDS
    for _ in range(3)
]
UNPAIRED = [
    {"prompt": f"p{place}", "completion": f"{word} {place}", "label": place % 3 > 0}
    for place, word in enumerate(WORDS * 2)
]


def configured(model: Path, folder: Path, rows: list[dict[str, Any]], **loss: Any) -> Config:
    path = folder / "data.jsonl"
    numbered = [row | {"prompt": f"{row['prompt']} {n}"} for n, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in numbered))
    return Config(
        loss=loss,
        cache_dir=str(folder / "cache"),
        model={"name": str(model)},
        dataset={"name": "jsonl", "path": str(path), "max_length": 64},
    )


def filtered(config: Config) -> tuple[Prepared, list[Any]]:
    """The preparation after the filter, and the training examples before it."""
    prepared = prepare(config, silent)
    before = list(prepared.train)
    reference = open_reference(config, prepared.start)
    context = build_context(config, reference, prepared.start.tokeniser, prepared.train)
    filter_training(config, prepared, reference, context, silent)
    return prepared, before


@torch.no_grad()
def plain_rewards(config: Config, items: list[Any]) -> list[float]:
    """Σ_v Q_diff[v]·mean_t log p(v) with the model's own logits, one sequence at a time."""
    prepared = prepare(config, silent)
    reference = open_reference(config, prepared.start)
    context = build_context(config, reference, prepared.start.tokeniser, prepared.train)
    signed = signed_difference(context)
    rewards = []
    for item in items:
        ids = item.response_ids[0]
        row = torch.tensor([[*item.prompt_ids, *ids]])
        logits = prepared.start.policy.model(input_ids=row).logits[0].double()
        logps = torch.log_softmax(logits, -1)[len(item.prompt_ids) - 1 : -1]
        rewards.append(float(logps.mean(0) @ signed))
    return rewards


@pytest.mark.parametrize("keeps", ["lowest", "highest"])
def test_the_examples_of_that_reward_stay_and_the_others_are_counted(
    qwen_dir: Path, tmp_path: Path, keeps: str
) -> None:
    config = configured(
        qwen_dir, tmp_path, PAIRS, dpo={}, deft={"filter": 0.25, "filter_keeps": keeps}
    )
    prepared, before = filtered(config)
    rewards = plain_rewards(config, before)

    order = sorted(range(len(before)), key=lambda index: rewards[index])
    count = -(-len(before) // 4)
    expected = order[:count] if keeps == "lowest" else order[-count:]
    texts = [item.example.prompt[-1].content for item in prepared.train]
    assert texts == [before[index].example.prompt[-1].content for index in sorted(expected)]
    (tally,) = prepared.tallies
    assert tally.kept["train"] == prepared.facts["train"] == count
    assert tally.dropped[f"not among the 0.25 of {keeps} reward (loss.deft.filter)"] == (
        len(before) - count
    )
    assert prepared.facts["tallies"] == [tally.as_dict()]


def test_without_a_filter_nothing_is_scored_or_left_out(qwen_dir: Path, tmp_path: Path) -> None:
    prepared, before = filtered(configured(qwen_dir, tmp_path, PAIRS, dpo={}, deft={}))

    assert prepared.train == before


@pytest.mark.parametrize("loss", ["dpo", "aot", "pro"])
def test_terms_on_pairs_refuse_unpaired_data(qwen_dir: Path, tmp_path: Path, loss: str) -> None:
    config = configured(qwen_dir, tmp_path, UNPAIRED, **{loss: {}})
    with pytest.raises(UserError, match=rf"loss={loss}: .*to one prompt.*aot_unpaired"):
        prepare(config, silent)


@pytest.mark.parametrize("loss", ["aot_unpaired", "plot", "deft", "kl", "js", "mse", "uld"])
def test_terms_on_two_sides_take_unpaired_data_but_not_one_side(
    qwen_dir: Path, tmp_path: Path, loss: str
) -> None:
    both = configured(qwen_dir, tmp_path, UNPAIRED, **{loss: {}})
    prepared = prepare(both, silent)
    reference = open_reference(both, prepared.start)
    context = build_context(both, reference, prepared.start.tokeniser, prepared.train)
    assert list(build(both.loss, context).terms) == [loss]

    liked = [row for row in UNPAIRED if row["label"]]
    with pytest.raises(UserError, match=rf"loss={loss}: .*only one of the two"):
        prepare(configured(qwen_dir, tmp_path, liked, **{loss: {}}), silent)


def test_a_term_that_cannot_be_built_says_why(qwen_dir: Path, tmp_path: Path) -> None:
    same = [row | {"chosen": "yes no", "rejected": "no yes"} for row in PAIRS]
    config = configured(qwen_dir, tmp_path, same, plot={"significance": 50.0})
    prepared = prepare(config, silent)
    reference = open_reference(config, prepared.start)
    context = build_context(config, reference, prepared.start.tokeniser, prepared.train)
    with pytest.raises(UserError, match=r"loss=plot: plot: .*no preference distribution"):
        build(config.loss, context)
