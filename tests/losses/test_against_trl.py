"""The same model, batch and loss type through TRL's DPOTrainer: values and gradients agree."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.losses import AOTConfig, AOTUnpairedConfig, DPOConfig, IPOConfig
from plot_exp.data.collate import Batch, collate_padded
from plot_exp.losses.aot import AOT
from plot_exp.losses.aot_unpaired import AOTUnpaired
from plot_exp.losses.base import Term, Totals
from plot_exp.losses.dpo import DPO
from plot_exp.losses.ipo import IPO
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request

from loss_scores import context
from scoring_models import example

trl = pytest.importorskip("trl", reason="TRL, the oracle of these values, is not installed")

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])
BETA = 0.2
PAIRS = [
    ("How many apples are there?", "There are seven.", "There are four."),
    ("Say hello", "hello there!", "hello again, you."),
    ("What is the answer?", "It is 42", "It is 24."),
    ("seven times six", "forty-two", "forty-four"),
    ("Hm", "Good morning!", "Good evening?"),
    ("Where is the map", "on the table", "in the basket"),
]


@pytest.fixture(scope="module")
def trainer(qwen_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer on a small model and an unrelated reference, whose margins rank differently."""
    model = AutoModelForCausalLM.from_pretrained(qwen_dir)
    reference = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=noise))
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trl.DPOTrainer(
            model=model,
            ref_model=reference,
            args=trl.DPOConfig(
                output_dir=str(tmp_path_factory.mktemp("trl")),
                per_device_train_batch_size=len(PAIRS),
                use_cpu=True,
                bf16=False,
                report_to=[],
                beta=BETA,
                disable_dropout=True,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(qwen_dir),
        )


@pytest.fixture(scope="module")
def inputs(trainer: Any) -> dict[str, Tensor]:
    """One batch as TRL lays it out: chosen rows, then rejected rows."""
    found: dict[str, Tensor] = next(iter(trainer.get_train_dataloader()))
    return found


def rows(inputs: dict[str, Tensor], pairs: slice) -> dict[str, Tensor]:
    """Some of the pairs, in TRL's layout."""
    halves = {name: tensor.chunk(2) for name, tensor in inputs.items()}
    return {name: torch.cat([half[pairs] for half in both]) for name, both in halves.items()}


def our_batch(inputs: dict[str, Tensor]) -> Batch:
    """The same token ids as examples of this project."""
    found = []
    for ids, attention, completion in zip(
        inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True
    ):
        response = (completion == 1) & (attention == 1)
        prompt = (completion == 0) & (attention == 1)
        found.append((ids[prompt].tolist(), ids[response].tolist()))
    half = len(found) // 2
    pairs = zip(found[:half], found[half:], strict=True)
    return collate_padded([example(w[0], [w[1], bad[1]]) for w, bad in pairs], 0)


def theirs(
    trainer: Any, inputs: dict[str, Tensor], loss_type: str, smoothing: float = 0.0
) -> tuple[float, list[Tensor]]:
    trainer.loss_types, trainer.label_smoothing = [loss_type], smoothing
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs, False)
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in trainer.model.parameters()]


def ours(trainer: Any, inputs: dict[str, Tensor], term: Term) -> tuple[float, list[Tensor]]:
    batch = our_batch(inputs)
    trainer.model.zero_grad()
    with torch.no_grad():
        reference = Policy(trainer.ref_model)(batch, Request())
    policy = Policy(trainer.model)(batch, Request())
    loss = term(policy, reference, batch.responses, Totals.of([batch.responses])).loss
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in trainer.model.parameters()]


def assert_same(one: tuple[float, list[Tensor]], other: tuple[float, list[Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for left, right in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize(
    ("loss_type", "term"),
    [
        ("sigmoid", DPO(DPOConfig(beta=BETA), NOTHING)),
        ("aot", AOT(AOTConfig(beta=BETA), NOTHING)),
        ("aot_unpaired", AOTUnpaired(AOTUnpairedConfig(beta=BETA), NOTHING)),
        ("ipo", IPO(IPOConfig(beta=BETA, reduction="mean"), NOTHING)),
    ],
)
def test_value_and_gradient(
    trainer: Any, inputs: dict[str, Tensor], loss_type: str, term: Term
) -> None:
    assert_same(ours(trainer, inputs, term), theirs(trainer, inputs, loss_type))


def test_the_three_types_differ_on_this_batch(trainer: Any, inputs: dict[str, Tensor]) -> None:
    values = {theirs(trainer, inputs, name)[0] for name in ("sigmoid", "aot", "aot_unpaired")}

    assert max(values) - min(values) > 1e-2
    assert len({round(value, 4) for value in values}) == 3


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_label_smoothing_of_one_pair_is_that_of_their_aot(
    trainer: Any, inputs: dict[str, Tensor], smoothing: float
) -> None:
    """TRL's `sigmoid` has no smoothing; its `aot` has, and on one pair both are one formula."""
    term = DPO(DPOConfig(beta=BETA, label_smoothing=smoothing), NOTHING)
    for place in range(len(PAIRS)):
        pair = rows(inputs, slice(place, place + 1))
        assert_same(ours(trainer, pair, term), theirs(trainer, pair, "aot", smoothing))


def test_label_smoothing_of_a_batch_from_their_robust(
    trainer: Any, inputs: dict[str, Tensor]
) -> None:
    """robust = ((1−ε)A − εB)/(1−2ε) with A = −log σ(x), B = −log σ(−x); ours is (1−ε)A + εB, so
    2(1−ε)·sigmoid − (1−2ε)·robust.
    """
    smoothing = 0.2
    plain, robust = (theirs(trainer, inputs, name, smoothing)[0] for name in ("sigmoid", "robust"))
    term = DPO(DPOConfig(beta=BETA, label_smoothing=smoothing), NOTHING)

    expected = 2 * (1 - smoothing) * plain - (1 - 2 * smoothing) * robust
    assert ours(trainer, inputs, term)[0] == pytest.approx(expected, rel=1e-5)
