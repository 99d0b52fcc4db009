"""The numbers of a run can be found again from its exported model and its data."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.schema import Config, load
from plot_exp.data.loader import evaluation_batches
from plot_exp.losses.base import Totals
from plot_exp.losses.composite import build
from plot_exp.models.dropout import set_dropout
from plot_exp.models.policy import frozen_copy
from plot_exp.progress import silent
from plot_exp.training.metrics import response_metrics, term_metrics
from plot_exp.training.part import Part
from plot_exp.workflows.context import build_context
from plot_exp.workflows.measure import Measurer
from plot_exp.workflows.measured import preference_distribution
from plot_exp.workflows.prepare import prepare
from plot_exp.workflows.reference import open_reference


@pytest.fixture
def measurer(qwen_dir, tmp_path):
    """`measurer(loss, validation_batch_size)` on a small file, with a policy that has moved."""
    rows = [
        {"prompt": f"how many are {n}?", "chosen": "seven " * (n % 3 + 1), "rejected": f"no {n}"}
        for n in range(40)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(loss, size):
        config = Config(
            loss={term: {} for term in loss.split("+")},
            cache_dir=str(tmp_path / "cache"),
            model={"name": str(qwen_dir)},
            dataset={"name": "jsonl", "path": str(path), "validation_fraction": 0.3},
            trainer={"validation_batch_size": size},
            eval={"generations": 4, "max_new_tokens": 4},
        )
        prepared = prepare(config, silent)
        reference = open_reference(config, prepared.start)
        context = build_context(config, reference, prepared.start.tokeniser, prepared.train)
        composite = build(config.loss, context)
        policy = frozen_copy(prepared.start.policy)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for parameter in policy.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return Measurer(config, prepared, reference, composite, context, silent), policy

    return make


@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_validation_losses_do_not_depend_on_the_batch_size(measurer, loss):
    found = []
    for size in (1, 5, 64):
        one, policy = measurer(loss, size)
        found.append(one.validate(policy))
    for other in found[1:]:
        assert other[f"val/loss/{loss}"] == pytest.approx(found[0][f"val/loss/{loss}"], rel=1e-5)
        assert other["val/reward_margin"] == pytest.approx(found[0]["val/reward_margin"], rel=1e-4)


def test_the_validation_loss_is_that_of_the_whole_split(measurer):
    one, policy = measurer("sft+plot", 4)
    found = one.validate(policy)
    (whole,) = evaluation_batches(one.prepared.validation, 1000, 0)
    scores = policy(whole, one.composite.request)
    results = one.composite(scores, None, whole.responses, Totals.of([whole.responses]))
    assert found["val/loss/sft"] == pytest.approx(float(results["sft"].loss), rel=1e-5)
    weights = one.composite.weights
    assert found["val/loss"] == pytest.approx(
        sum(weights[name] * found[f"val/loss/{name}"] for name in weights)
    )


def test_validation_samples_replace_those_of_steps_to_come(measurer, tmp_path):
    one, policy = measurer("sft", 8)

    class Silent:
        def table(self, *_):
            pass

    for step in (2, 4, 6, 4):
        one.sample(policy, step, tmp_path, Silent())
    lines = (tmp_path / "generations.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [2] * 4 + [4] * 4


@pytest.mark.parametrize("loss", ["dpo", "dpo+plot"])
def test_the_distance_is_measured_with_and_without_the_term(measurer, loss):
    one, policy = measurer(loss, 8)
    before, after = one.measure(one.prepared.start.policy), one.measure(policy)
    assert before.metrics["val/reward_accuracy"] == 0.5
    assert after.metrics["val/reward_margin"] != 0.0
    facts = preference_distribution(one, before, after)
    assert facts["in_loss"] is ("plot" in loss)
    assert facts["distance_before"] == before.metrics["val/transport_distance"]
    assert facts["distance_after"] == after.metrics["val/transport_distance"]


@pytest.mark.slow
def test_metrics_are_found_again_from_the_exported_model_and_the_data(quick_run):
    """With transformers alone, one response at a time."""
    config = load(quick_run / "config.yaml")
    metrics = json.loads((quick_run / "metrics.json").read_text())
    config = config.model_copy(update={"cache_dir": str(quick_run.parent / config.cache_dir)})
    prepared = prepare(config, silent)
    reference = prepared.start.policy.model.eval()
    policy = AutoModelForCausalLM.from_pretrained(quick_run / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(quick_run / "model")
    beta = yaml.safe_load((quick_run / "config.yaml").read_text())["loss"]["dpo"]["beta"]
    rewards, sums, means = [], [], []
    for item in prepared.validation:
        turns = [{"role": one.role, "content": one.content} for one in item.example.prompt]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        found = []
        for response in item.example.responses:
            ids = [*tokenizer(response, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            scored = []
            for model in (policy, reference):
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([prompt + ids])).logits[0]
                logps = logits[len(prompt) - 1 : -1].double().log_softmax(-1)
                scored.append(float(logps[range(len(ids)), ids].sum()))
            found.append((scored[0], scored[1], len(ids)))
        (s_w, r_w, l_w), (s_l, r_l, l_l) = found
        rewards.append(beta * ((s_w - r_w) - (s_l - r_l)))
        sums.append(s_w > s_l)
        means.append(s_w / l_w > s_l / l_l)
    assert len(rewards) == metrics["val/count"] == metrics["val/reward_margin/count"]
    assert metrics["val/reward_margin"] == pytest.approx(np.mean(rewards), abs=2e-5)
    assert metrics["val/reward_accuracy"] == np.mean(np.array(rewards) > 0)
    assert metrics["val/logp_accuracy/sum"] == np.mean(sums)
    assert metrics["val/logp_accuracy/mean"] == np.mean(means)


@pytest.mark.slow
def test_the_answers_are_found_again_from_the_exported_model(quick_run):
    model = AutoModelForCausalLM.from_pretrained(quick_run / "model").eval()
    set_dropout(model, 0.0)
    tokenizer = AutoTokenizer.from_pretrained(quick_run / "model")
    lines = (quick_run / "samples.jsonl").read_text().splitlines()
    assert lines
    for row in map(json.loads, lines):
        ids = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).input_ids
        found = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(found, skip_special_tokens=True).strip() == row["after"]


def test_a_validation_shows_what_a_step_shows(measurer):
    one, policy = measurer("dpo+plot", 64)
    found = one.validate(policy)
    (whole,) = evaluation_batches(one.prepared.validation, 1000, 0)
    reference = one.reference.scores(whole)
    scores = policy(whole, one.composite.request)
    part = Part(scores, reference, whole.responses)
    shown = response_metrics("val", part, one.composite.beta)
    terms = one.composite(scores, reference, whole.responses, Totals.of([whole.responses]))
    shown |= term_metrics("val", terms, one.composite.weights)
    assert {"val/quantile/rejected/90", "val/plot/distance"} <= shown.keys()
    for key in shown.keys() - {"val/quantiles_violated"}:
        assert found[key] == pytest.approx(float(shown[key]), rel=1e-4, abs=1e-6), key
