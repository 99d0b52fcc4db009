"""CPO, SimPO, ORPO and KTO through TRL's own trainers: values and gradients agree."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.losses import CPOConfig, KTOConfig, ORPOConfig, SimPOConfig
from plot_exp.data.collate import Batch, collate_padded
from plot_exp.data.mismatched import Mismatch
from plot_exp.losses.base import Term, Totals
from plot_exp.losses.cpo import CPO
from plot_exp.losses.kto import KTO
from plot_exp.losses.orpo import ORPO
from plot_exp.losses.simpo import SimPO
from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request
from plot_exp.training.mismatched import mismatched_log_ratio

from loss_scores import context
from scoring_models import example

trl = pytest.importorskip("trl", reason="TRL, the oracle of these values, is not installed")
pytestmark = pytest.mark.slow

NOTHING = context(torch.zeros(2, 1), [1, 0], [0, 1])
# One-letter prompts: TRL's ORPO counts the prompt's tokens, but the first, in the likelihood.
PAIRS = [
    ("H", "There are seven.", "There are four."),
    ("S", "hello there!", "hello again, you."),
    ("W", "It is 42", "It is 24."),
    ("x", "forty-two", "forty-four"),
]
LABELLED = [
    ("How many apples are there?", "There are seven.", True),
    ("Say hello", "hello again, you.", False),
    ("What is the answer?", "It is 42", True),
    ("seven times six", "forty-two", True),
    ("Hm", "Good evening?", False),
]
Found = tuple[float, list[Tensor]]


def models(folder: Path) -> tuple[Any, Any]:
    """A small model moved away from its reference."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    reference = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    return model, reference


def arguments(kind: Any, folder: Path, size: int, **settings: Any) -> Any:
    return kind(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_dropout=True,
        disable_tqdm=True,
        **settings,
    )


def gradients(model: Any, loss: Tensor) -> Found:
    model.zero_grad()
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


def assert_same(one: Found, other: Found) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for left, right in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))


def without_reference(folder: Path, output: Path, kind: str, **settings: Any) -> tuple[Any, Batch]:
    """TRL's CPO or ORPO trainer and its batch as one of this project."""
    trl_experimental = pytest.importorskip(f"trl.experimental.{kind.lower()}")
    model, _ = models(folder)
    config = getattr(trl_experimental, f"{kind}Config")
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = getattr(trl_experimental, f"{kind}Trainer")(
            model=model,
            args=arguments(config, output, len(PAIRS), **settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
    pairs = []
    for row in trainer.train_dataset:
        prompt = row["prompt_input_ids"]
        assert len(prompt) == 1
        answers = [row[f"{side}_input_ids"][1:] for side in ("chosen", "rejected")]
        pairs.append(example(prompt, answers))
    return trainer, collate_padded(pairs, 0)


@pytest.mark.parametrize(
    ("kind", "settings", "term"),
    [
        ("CPO", {"beta": 0.2, "loss_type": "sigmoid"}, CPO(CPOConfig(beta=0.2), NOTHING)),
        (
            "CPO",
            {"beta": 0.2, "loss_type": "sigmoid", "label_smoothing": 0.3, "cpo_alpha": 0.5},
            CPO(CPOConfig(beta=0.2, label_smoothing=0.3, sft_weight=0.5), NOTHING),
        ),
        (
            "CPO",
            {"beta": 2.5, "loss_type": "simpo", "simpo_gamma": 1.375, "cpo_alpha": 0.0},
            SimPO(SimPOConfig(), NOTHING),
        ),
        ("ORPO", {"beta": 0.7}, ORPO(ORPOConfig(odds_weight=0.7), NOTHING)),
    ],
)
def test_value_and_gradient_without_a_reference(
    qwen_dir: Path, tmp_path: Path, kind: str, settings: dict[str, Any], term: Term
) -> None:
    trainer, batch = without_reference(qwen_dir, tmp_path, kind, **settings)
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs, _ = trainer.get_batch_loss_metrics(trainer.model, inputs)
    found = Policy(trainer.model)(batch, Request())
    ours = term(found, None, batch.responses, Totals.of([batch.responses])).loss

    assert_same(gradients(trainer.model, ours), gradients(trainer.model, theirs))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0)])
def test_kto_and_its_reference_point(
    qwen_dir: Path, tmp_path: Path, weights: tuple[float, float]
) -> None:
    """Their responses are shifted by one within the batch, ours too, in the order of a hash of the
    contents: the data are given to them in that order.
    """
    # This way round the divergence is above zero.
    reference, model = models(qwen_dir)
    keys = ("prompt", "completion", "label")
    tokenizer = AutoTokenizer.from_pretrained(qwen_dir)

    def contents(row: tuple[str, str, bool]) -> int:
        prompt, completion = (tuple(tokenizer(text).input_ids) for text in row[:2])
        return hash((prompt, (*completion, tokenizer.eos_token_id)))

    rows = [dict(zip(keys, row, strict=True)) for row in sorted(LABELLED, key=contents)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.KTOTrainer(
            model=model,
            ref_model=reference,
            args=arguments(
                trl.KTOConfig,
                tmp_path,
                len(LABELLED),
                beta=0.05,
                desirable_weight=weights[0],
                undesirable_weight=weights[1],
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = gradients(model, trainer._compute_loss(model, inputs, False))

    batch = collate_padded(
        [
            example(row["prompt_ids"], [row["completion_ids"]], desirable=(row["label"],))
            for row in trainer.train_dataset
        ],
        0,
    )
    policy, frozen = Policy(model), Policy(reference)
    mismatched = mismatched_log_ratio(
        [batch],
        Mismatch(partial(collate_padded, pad_id=0), max_length=512),
        lambda one: policy(one, Request()),
        lambda one: frozen(one, Request()),
        policy.device,
    )
    term = KTO(
        KTOConfig(beta=0.05, desirable_weight=weights[0], undesirable_weight=weights[1]), NOTHING
    )
    totals = Totals.of([batch.responses])
    result = term(
        policy(batch, Request()),
        frozen(batch, Request()).detach(),
        batch.responses,
        replace(totals, mismatched=mismatched),
    )

    (their_z,) = trainer._metrics["train" if model.training else "eval"]["kl"]
    assert their_z > 0.1
    assert result.metrics["z"].item() == pytest.approx(their_z, rel=1e-4)
    assert_same(gradients(model, result.loss), theirs)
