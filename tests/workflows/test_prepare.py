"""From files to tokenised examples: everything is counted, what cannot be used says why."""

from __future__ import annotations

import json

import pytest
import torch

from plot_exp.config.schema import Config
from plot_exp.data import token_cache
from plot_exp.errors import UserError
from plot_exp.generators.local import LocalGenerator
from plot_exp.progress import silent
from plot_exp.workflows import train
from plot_exp.workflows.models import open_saved
from plot_exp.workflows.prepare import prepare
from plot_exp.workflows.reference import open_reference

PAIR = {"prompt": "how many apples?", "chosen": "seven apples", "rejected": "no idea"}


@pytest.fixture
def configure(qwen_dir, tmp_path):
    """`configure(rows, **sections)`: a configuration on a jsonl file of rows."""

    def make(rows, *, dataset=None, model=None, loss="dpo", **top):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Config(
            loss={loss: {}},
            cache_dir=str(tmp_path / "cache"),
            model={"name": str(qwen_dir)} | (model or {}),
            dataset={"name": "jsonl", "path": str(path), "max_length": 64} | (dataset or {}),
            **top,
        )

    return make


def rows(count):
    return [PAIR | {"prompt": f"how many apples are {place}?"} for place in range(count)]


def test_kept_and_dropped_add_up_to_what_was_read(configure):
    data = [*rows(60), *(PAIR | {"prompt": f"p{n}", "chosen": "word " * 80} for n in range(5))]
    prepared = prepare(configure(data), silent)
    (tally,) = prepared.tallies
    assert tally.kept["train"] == len(prepared.train) == prepared.facts["train"]
    assert tally.kept["validation"] == len(prepared.validation) == prepared.facts["validation"]
    assert sum(tally.kept.values()) + sum(tally.dropped.values()) == 65
    assert sum(n for reason, n in tally.dropped.items() if "max_length" in reason) == 5


def test_fewer_preferences_are_counted_nested_and_leave_validation_as_it_is(configure):
    held_out, trained_on = [], []
    for limit in (10, 30, None):
        prepared = prepare(configure(rows(60), dataset={"preference_limit": limit}), silent)
        (tally,) = prepared.tallies
        assert tally.kept["train"] == len(prepared.train) == prepared.facts["train"]
        assert sum(tally.kept.values()) + sum(tally.dropped.values()) == 60
        held_out.append([item.example for item in prepared.validation])
        trained_on.append({item.example.prompt for item in prepared.train})
    assert [len(prompts) for prompts in trained_on] == [10, 30, 54]
    assert trained_on[0] < trained_on[1] < trained_on[2]
    assert held_out[0] == held_out[1] == held_out[2]


def test_a_model_without_a_chat_template_is_told_of_unless_it_is_meant(configure):
    for template, told in ((None, True), ("plain", False)):
        config = configure(rows(10), model={"chat_template": template})
        prepared = prepare(config, silent)
        prepared.start.tokeniser.plain = True
        notes = " ".join(train._notes(config, prepared))
        assert ("has no chat template" in notes) == told


def test_the_base_is_made_from_all_and_trained_on_fewer(configure):
    tiny = {"name": "tiny", "weights": "random"}
    starts = [
        prepare(configure(rows(60), dataset=dataset, model=tiny), silent).start.origin
        for dataset in ({}, {"preference_limit": 10}, {"limit": 10})
    ]
    assert starts[0] == starts[1] != starts[2]


def test_a_term_that_needs_pairs_refuses_data_without(configure):
    data = [{"prompt": f"p{place}", "completion": "x"} for place in range(10)]
    with pytest.raises(UserError, match=r"loss=dpo: .*compares chosen with rejected.*loss=sft"):
        prepare(configure(data), silent)
    assert prepare(configure(data, loss="sft"), silent).train


def test_nothing_that_fits_is_an_error(configure):
    data = [PAIR | {"prompt": f"p{n}", "chosen": "word " * 80} for n in range(10)]
    with pytest.raises(UserError, match="max_length=64"):
        prepare(configure(data), silent)


def test_a_mix_counts_each_source_by_itself(configure, tmp_path):
    config = configure(rows(20))
    other = tmp_path / "other.jsonl"
    long = PAIR | {"chosen": "word " * 80}
    lines = [*(PAIR | {"prompt": f"q{n}"} for n in range(10)), *([long | {"prompt": "z"}] * 1)]
    other.write_text("".join(json.dumps(row) + "\n" for row in lines))
    source = config.dataset.model_dump(exclude={"sources"})
    mixed = config.model_copy(
        update={
            "dataset": type(config.dataset)(
                name="mix",
                max_length=64,
                sources={"one": source, "two": source | {"path": str(other)}},
            )
        }
    )
    prepared = prepare(mixed, silent)
    by_name = {tally.dataset: tally for tally in prepared.tallies}
    assert set(by_name) == {"one", "two"}
    for name, tally in by_name.items():
        train = [item for item in prepared.train if item.example.dataset == name]
        assert tally.kept["train"] == len(train)


def test_dropout_is_off_unless_asked_for(configure):
    prepared = prepare(configure(rows(10)), silent)
    modules = prepared.start.policy.model.modules()
    assert all(getattr(module, "attention_dropout", 0.0) == 0.0 for module in modules)


def test_a_reference_of_its_own(configure, qwen_dir, llama_dir):
    config = configure(rows(10), reference=str(qwen_dir))
    start = prepare(config, silent).start
    reference = open_reference(config, start)
    weight = reference.model.get_input_embeddings().weight
    assert torch.equal(weight, start.policy.model.get_input_embeddings().weight)
    assert not reference.trainable()
    other = configure(rows(10), reference=str(llama_dir))
    with pytest.raises(UserError, match=r"reference=.*llama: its tokenizer differs"):
        open_reference(other, start)


def test_a_saved_policy_opens_without_the_runs_own_template_file(configure, qwen_dir):
    config = configure(rows(10), model={"chat_template": "/gone.jinja"})
    start = open_saved(config, qwen_dir)
    assert start.tokeniser.tokenizer.chat_template is not None
    assert start.origin == str(qwen_dir)


GSM8K = [
    {
        "question": f"{n} and {n} more apples?",
        "answer": f"{n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}",
    }
    for n in range(1, 13)
]


@pytest.fixture
def sampled(configure, tmp_path):
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    for name in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in GSM8K)
        (folder / f"{name}.jsonl").write_text(text)
    return configure(
        [],
        dataset={
            "name": "gsm8k",
            "path": str(folder),
            "rejected": "sampled",
            "max_length": 128,
            "sampled": {"samples": 2, "max_new_tokens": 4},
        },
    )


def test_sampled_rejections_are_drawn_from_the_policys_start_once(sampled, monkeypatch):
    prepared = prepare(sampled, silent)
    assert all(item.example.kind == "ranked" for item in prepared.train)
    assert all(item.example.responses[0] != item.example.responses[1] for item in prepared.train)

    def fail(*_, **__):
        raise AssertionError("drawn again")

    monkeypatch.setattr(LocalGenerator, "__call__", fail)
    again = prepare(sampled, silent)
    assert [item.response_ids for item in again.train] == [
        item.response_ids for item in prepared.train
    ]


def test_the_second_run_finds_its_data_tokenised(configure, monkeypatch, tmp_path):
    config = configure(rows(20))
    prepared = prepare(config, silent)

    def fail(*_, **__):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(token_cache, "encode", fail)
    again = prepare(config, silent)
    assert [(item.prompt_ids, item.response_ids) for item in again.train] == [
        (item.prompt_ids, item.response_ids) for item in prepared.train
    ]
    assert again.facts == prepared.facts
    template = tmp_path / "other.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for changed in (
        configure(rows(20), dataset={"max_length": 63}),
        configure(rows(20), model={"chat_template": str(template)}),
        configure(rows(21)),
    ):
        with pytest.raises(AssertionError, match="tokenised again"):
            prepare(changed, silent)


@pytest.mark.parametrize(("asked", "found"), [("auto", "packed"), ("padded", "padded")])
def test_batches_have_the_layout_that_was_asked_for(configure, asked, found):
    prepared = prepare(configure(rows(10), trainer={"layout": asked}), silent)
    assert prepared.layout.name == found
    batches = list(prepared.batches(prepared.train, 4))
    assert all((batch.visibility is None) == (found == "padded") for batch in batches)
    assert sum(batch.responses.examples for batch in batches) == len(prepared.train)
