"""The model card: front matter that the hub's own library reads, and what the run's files say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import plot_exp
from plot_exp.publishing.card import Exported, model_card
from plot_exp.report.contents import Contents

CONFIG = {
    "name": "mine",
    "seed": 3,
    "task": "train",
    "model": {"name": "Qwen/Qwen2.5-7B-Instruct", "weights": "pretrained", "lora": {"rank": 8}},
    "dataset": {
        "name": "mix",
        "sources": {
            "a": {"name": "hh_rlhf", "path": None, "hub_name": None, "subset": "harmless-base"},
            "b": {"name": "gsm8k", "path": "/home/ann/secret-plan/gsm8k", "rejected": "corrupt"},
            "c": {"name": "jsonl", "path": None, "hub_name": "acme/pairs"},
        },
    },
    "loss": {"dpo": {"beta": 0.1, "weight": 1.0}, "plot": {"alpha": 0.5}},
    "trainer": {"batch_size": 32, "coupling": "exact"},
    "optimizer": {"lr": 1e-6},
}
METRICS = {
    "train/steps": 120.0,
    "base/val/reward_accuracy": 0.5,
    "val/reward_accuracy": 0.75,
    "val/reward_accuracy/low": 0.71,
    "val/reward_accuracy/high": 0.79,
    "val/count": 450.0,
}
DATA = {
    "train": 90,
    "validation": 10,
    "tallies": [
        {
            "dataset": "hh_rlhf",
            "kept": {"train": 90},
            "dropped": {"empty final response": 4},
            "changed": {},
            "examples": {"empty final response": ["/home/ann/hh/test.jsonl, row 7"]},
        }
    ],
}
EXPORTED = Exported(
    base="Qwen/Qwen2.5-7B-Instruct",
    adapter=True,
    step=120,
    dtype="bfloat16",
    chat_template=True,
    repository="ann/policy",
    license="apache-2.0",
    wandb="https://wandb.ai/ann/plot_exp/runs/abc",
)


def contents(**changes: object) -> Contents:
    found = Contents(
        Path("run"),
        config=CONFIG,
        metrics=METRICS,
        data=DATA,
        environment={"plot_exp": "0.1.0", "commit": {"id": "1234abcd", "changed": True}},
    )
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def test_the_hub_reads_the_front_matter() -> None:
    card = ModelCard(model_card(contents(), EXPORTED))
    assert card.data.library_name == "peft"
    assert card.data.base_model == "Qwen/Qwen2.5-7B-Instruct"
    assert card.data.license == "apache-2.0"
    # Data read from local files are not said to be the published ones.
    assert card.data.datasets == ["Anthropic/hh-rlhf", "acme/pairs"]
    assert card.data.tags == ["plot_exp", "preference-learning", "dpo", "plot"]
    assert card.data.pipeline_tag == "text-generation"


def test_the_card_says_what_the_files_say_and_not_where_they_lay() -> None:
    text = model_card(contents(), EXPORTED)
    assert "0.750 \\[0.710, 0.790\\]" in text
    assert "| hh\\_rlhf | dropped | empty final response | 4 |" in text
    assert "90 examples were trained on and 10 held out" in text
    assert "alpha=0.5" in text
    assert "beta=0.1" in text
    assert "rank=8" in text
    assert "`gsm8k`; rejected responses made by plot_exp (`corrupt`)" in text
    assert "`1234abcd`, with changes that were not committed" in text
    assert "<https://wandb.ai/ann/plot_exp/runs/abc>" in text
    assert f"| plot_exp, export | {plot_exp.__version__} |" in text
    assert "Attack success was not measured" in text
    assert "/home" not in text
    assert "secret-plan" not in text
    code = next(t.content for t in MarkdownIt().parse(text.split("---\n")[2]) if t.type == "fence")
    compile(code, "card", "exec")
    assert 'AutoPeftModelForCausalLM.from_pretrained("ann/policy"' in code


@pytest.mark.parametrize(
    ("step", "metrics", "said"),
    [
        (60, METRICS, "**These weights are of step 60**"),
        (120, None, "has not come to its end"),
        (120, {**METRICS, "eval/asr/gcg": 0.2}, "Attack success by the chosen judge, GCG"),
    ],
)
def test_what_was_not_measured_is_said(step: int, metrics: object, said: str) -> None:
    plain = Exported(None, adapter=False, step=step, dtype="float32", chat_template=False)
    text = model_card(contents(metrics=metrics), plain)
    assert said in text
    assert "No licence is stated here" in text
    data = ModelCard(text).data
    assert data.base_model is None
    assert data.license is None
    assert data.library_name == "transformers"


def with_model(settings: dict[str, object], **sections: object) -> Contents:
    model = {"name": "/home/ann/llama", "weights": "pretrained", "lora": settings}
    return contents(config={**CONFIG, "model": model, **sections})


PLAIN = Exported(None, adapter=False, step=120, dtype="float32", chat_template=False)


@pytest.mark.parametrize(
    ("lora", "adapter", "said"),
    [
        ({"rank": None}, False, "It started from a local model, `llama`; every weight was trained"),
        ({"rank": 4}, False, "a low-rank adapter was trained and is merged into the weights"),
        ({"rank": 4}, True, "A low-rank adapter that plot_exp trained with the objective `dpo`"),
        ({"rank": 4}, True, "It belongs to a local model, `llama`, whose weights were not trained"),
    ],
)
def test_what_was_trained_reads_as_a_sentence(lora: dict, adapter: bool, said: str) -> None:
    assert said in model_card(with_model(lora), replace(PLAIN, adapter=adapter))


def test_the_start_with_random_weights_reads_as_a_sentence() -> None:
    model = {"name": "Qwen/Qwen2.5-7B", "weights": "random", "lora": {"rank": None}}
    text = model_card(contents(config={**CONFIG, "model": model}), PLAIN)
    assert "It started from a model with random weights; every weight was trained." in text


def test_settings_stand_as_they_are_typed() -> None:
    loss = {"plot": {"alpha": None, "normalise": False, "cost_transforms": ["center", "unit"]}}
    lora = {"rank": 4, "dora": True, "target_modules": ["q_proj", "v_proj"]}
    trainer = {"max_steps": None, "epochs": 2.0, "batch_size": 4}
    text = model_card(with_model(lora, loss=loss, trainer=trainer), PLAIN)
    assert "alpha=null, normalise=false, cost\\_transforms=\\[center, unit\\]" in text
    assert "dora=true, target\\_modules=\\[q\\_proj, v\\_proj\\]" in text
    assert "epochs=2.0, batch\\_size=4" in text
    assert "max\\_steps" not in text
    for word in ("None", "True", "False", "'"):
        assert word not in text.split("## Objective")[1].split("## Data")[0]


def test_examples_that_no_step_came_to_are_not_said_to_be_trained_on() -> None:
    text = model_card(contents(), replace(PLAIN, step=2))
    assert (
        "90 examples stood ready for training, of which 64 were trained on (2 steps of 32); "
        "10 were held out."
    ) in text


def test_how_a_model_without_a_template_is_asked() -> None:
    text = model_card(contents(), PLAIN)
    assert r'ids = tokenizer("\n\nHuman: ...\n\nAssistant:", return_tensors="pt")' in text


@pytest.mark.parametrize(
    ("lora", "exported", "said"),
    [
        (
            {"rank": None},
            replace(PLAIN, dtype="bfloat16", measured_in="float32"),
            "measured in float32, before these weights were rounded to bfloat16",
        ),
        (
            {"rank": 4},
            replace(PLAIN, dtype="bfloat16"),
            "with the adapter beside the weights, before it was merged",
        ),
        (
            {"rank": 4, "quantised": "nf4"},
            replace(PLAIN, adapter=True),
            "four bits (`nf4`); above weights that are not rounded, answers differ",
        ),
        ({"rank": 4, "quantised": "nf4"}, PLAIN, "four bits (`nf4`); that is what it is merged"),
    ],
)
def test_rounding_behind_the_measurement_is_said(lora: dict, exported: Exported, said: str) -> None:
    assert said in model_card(with_model(lora), exported)
    assert "rounded" not in model_card(with_model({"rank": 4}), PLAIN)


def test_an_average_is_called_one() -> None:
    text = model_card(with_model({"rank": None}, optimizer={"ema": 0.99}), PLAIN)
    assert "These are the averaged weights (`optimizer.ema=0.99`) after step 120" in text
