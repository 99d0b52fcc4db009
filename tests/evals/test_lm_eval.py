"""An lm-eval task through this project and through lm-eval's own command gives one number."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.config.evals import LMEvalConfig
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError
from plot_exp.evals import lm_eval
from plot_exp.evals.base import CannotRunError, Subject, Tools, Workspace
from plot_exp.evals.intervals import wilson_interval
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.policy import Policy

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed"
)
CHOICE = """
task: toy_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
GENERATE = """
task: toy_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: ["?"], max_gen_toks: 6}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture
def tasks(tmp_path, llama_dir):
    """A folder with two tasks; the second's targets are what the model says for every other row."""
    model = AutoModelForCausalLM.from_pretrained(llama_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(llama_dir)
    rows = []
    for n in range(17):
        ids = tokenizer(f"How many are {n}", return_tensors="pt").input_ids
        found = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        said = tokenizer.decode(found, skip_special_tokens=True).partition("?")[0]
        rows.append(
            {
                "question": f"How many are {n}",
                "choices": [f" {n} apples", " a basket", " no idea at all"],
                "label": n % 3,
                "target": said if n % 2 else "something else",
            }
        )
    folder = tmp_path / "tasks"
    folder.mkdir()
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "toy_choice.yaml").write_text(CHOICE.format(file=file))
    (folder / "toy_generate.yaml").write_text(GENERATE.format(file=file))
    return folder


def subject_of(folder):
    policy = Policy(AutoModelForCausalLM.from_pretrained(folder))
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(folder))
    return Subject(LocalGenerator(policy, tokeniser, 4), "x")


def run(config, subject, tmp_path):
    tools = Tools(tmp_path, 4, EndpointConfig(), list)
    return lm_eval.build(config, tools).run(subject, Workspace(tmp_path / "work"))


@needs_lm_eval
@pytest.mark.slow
def test_a_task_gives_one_number_here_and_by_lm_evals_own_command(tasks, llama_dir, tmp_path):
    config = LMEvalConfig(tasks=["toy_choice", "toy_generate"], include_path=str(tasks))
    subject = subject_of(llama_dir)
    subject.local.policy.train()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    outcome = run(config, subject, tmp_path)
    assert subject.local.policy.training
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    found = outcome.metrics

    done = subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"),
            *("--model_args", f"pretrained={llama_dir},dtype=float32"),
            *("--tasks", "toy_choice,toy_generate", "--include_path", str(tasks)),
            *("--batch_size", "3", "--output_path", str(tmp_path / "out")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    assert found["lm_eval/toy_choice/acc"] == theirs["toy_choice"]["acc,none"]
    assert found["lm_eval/toy_choice/acc_norm"] == theirs["toy_choice"]["acc_norm,none"]
    exact = theirs["toy_generate"]["exact_match,none"]
    assert found["lm_eval/toy_generate/exact_match"] == exact == pytest.approx(8 / 17)
    assert found["lm_eval/toy_generate/exact_match/count"] == 17
    assert found["lm_eval/toy_generate/exact_match/low"] == wilson_interval(8, 17)[0]
    assert outcome.complete
    assert {row["task"] for row in outcome.samples} == {"toy_choice", "toy_generate"}
    assert outcome.samples[-1]["prompt"] == "How many are 16"


@needs_lm_eval
@pytest.mark.slow
def test_a_task_that_cannot_run_is_named_and_the_others_are_kept(
    tasks, llama_dir, tmp_path, monkeypatch
):
    from lm_eval.tasks import TaskManager

    # Without lm-eval's own thousands of tasks, which take seconds to read.
    own = partial(TaskManager, include_defaults=False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", own)
    config = LMEvalConfig(tasks=["nowhere@0", "toy_choice"], limit=5, include_path=str(tasks))
    outcome = run(config, subject_of(llama_dir), tmp_path)
    assert not outcome.complete
    assert outcome.metrics["lm_eval/toy_choice/acc/count"] == 5
    assert any("nowhere could not be run" in note for note in outcome.notes)
    assert not any("nowhere" in key for key in outcome.metrics)
    (tasks / "toy_choice.yaml").write_text("no longer: there")
    again = run(config, subject_of(llama_dir), tmp_path)
    assert again.metrics == outcome.metrics, "a finished task is not run again"
    with pytest.raises(CannotRunError, match=r"none of its tasks .*nowhere"):
        run(
            LMEvalConfig(tasks=["nowhere@0"], include_path=str(tasks)),
            subject_of(llama_dir),
            tmp_path / "other",
        )


def test_tasks_name_their_shots():
    assert LMEvalConfig(tasks=["a@5", "b", "c@0"]).shots() == {"a": 5, "b": None, "c": 0}
    for wrong in ("a@", "@5", "a@x", "a@-1"):
        with pytest.raises(ValueError, match="NAME@SHOTS"):
            LMEvalConfig(tasks=[wrong])


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    tools = Tools(tmp_path, 4, EndpointConfig(), list)
    with pytest.raises(UserError, match=r"eval\.lm_eval\.tasks is empty"):
        lm_eval.build(LMEvalConfig(), tools)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(CannotRunError, match=r"pip install 'plot-exp\[lm-eval\]'"):
        lm_eval.build(LMEvalConfig(tasks=["a"]), tools)


def test_results_of_groups_and_filters_are_read():
    results = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.35, "acc_stderr,none": 0.1},
            "gsm8k": {
                "exact_match,strict-match": 0.5,
                "exact_match_stderr,strict-match": "N/A",
                "exact_match,flexible-extract": 0.75,
            },
            "perplexity": {"word_perplexity,none": 12.0, "word_perplexity_stderr,none": 0.5},
        },
        "n-samples": {"one": {"effective": 7}, "two": {"effective": 3}, "gsm8k": {"effective": 4}},
        "group_subtasks": {"mmlu": ["one", "inner"], "inner": ["two"]},
    }
    found = lm_eval.metrics_of(results)
    assert (found["mmlu/acc"], found["mmlu/acc/count"]) == (0.35, 10)
    assert found["mmlu/acc/low"] == pytest.approx(0.35 - 0.196, abs=1e-3)
    assert found["gsm8k/exact_match/strict-match"] == 0.5
    assert "gsm8k/exact_match/strict-match/low" not in found
    assert found["gsm8k/exact_match/flexible-extract/count"] == 4
    assert found["perplexity/word_perplexity/high"] == pytest.approx(12.98, abs=1e-2)
