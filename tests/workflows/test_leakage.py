"""What a benchmark asks is counted among the training prompts before training, and left out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plot_exp.config.evals import EvalConfig
from plot_exp.config.schema import Config
from plot_exp.data.examples import Message
from plot_exp.data.overlap import prompt_hash
from plot_exp.errors import UserError
from plot_exp.evals.asked import asked_prompts
from plot_exp.progress import silent
from plot_exp.workflows.leakage import Leakage
from plot_exp.workflows.prepare import prepare

REASON = "the prompt is also asked by gsm8k"


@pytest.fixture
def configure(qwen_dir, tmp_path):
    """`configure(remove)`: twenty training prompts, two of which GSM8K's file asks as well."""
    data, problems = tmp_path / "data.jsonl", tmp_path / "problems.jsonl"
    rows = [{"prompt": f"how many are {n}?", "chosen": "7", "rejected": "8"} for n in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["How many  are 0?", "How many are 1?", "nobody else asks this"]
    lines = [json.dumps({"question": text, "answer": "#### 3"}) for text in asked]
    problems.write_text("".join(line + "\n" for line in lines))

    def make(remove):
        return Config(
            loss={"dpo": {}},
            cache_dir=str(tmp_path / "cache"),
            model={"name": str(qwen_dir)},
            dataset={
                "name": "jsonl",
                "path": str(data),
                "max_length": 64,
                "remove_overlap": remove,
                "validation_fraction": 0.05,
                "split_seed": 3,
            },
            eval={"name": "gsm8k", "gsm8k": {"path": str(problems)}},
        )

    return make


@pytest.fixture
def published():
    """`published(name)`: a folder of the shared data."""
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    return Path(folder).joinpath


def prompts(prepared):
    return {item.example.prompt[0].content for item in prepared.train}


def test_shared_prompts_are_counted_and_kept_or_left_out(configure, tmp_path):
    kept = prepare(configure(False), silent)
    both = {"how many are 0?", "how many are 1?"}
    assert both <= prompts(kept), "the seed cut one off for validation: choose another"
    counts = {"gsm8k": {"asked": 3, "examples": 2}}
    assert kept.facts["overlap"]["benchmarks"] == counts
    assert "removed_prompts" not in kept.facts["overlap"]
    (tally,) = kept.tallies
    assert [n for reason, n in tally.changed.items() if reason.startswith(REASON)] == [2]

    left = prepare(configure(True), silent)
    assert prompts(left) == prompts(kept) - both
    assert left.facts["overlap"]["benchmarks"] == counts
    (tally,) = left.tallies
    assert tally.dropped[REASON] == 2
    assert sum(tally.kept.values()) + sum(tally.dropped.values()) == 20

    # A later evaluation with another `eval` sees the data that the run trained on.
    (tmp_path / "data.json").write_text(json.dumps(left.facts))
    other = configure(True).model_copy(update={"eval": EvalConfig(name="quick")})
    again = prepare(other, silent, Leakage.of_run(tmp_path))
    assert prompts(again) == prompts(left)


def test_a_run_that_left_nothing_out_is_read_as_it_is(tmp_path):
    assert Leakage.of_run(tmp_path) == Leakage()
    (tmp_path / "data.json").write_text('{"overlap": {"prompts": 0}}')
    assert Leakage.of_run(tmp_path) == Leakage()


def test_each_benchmark_tells_what_it_asks(published):
    config = EvalConfig(
        name="paper",
        gsm8k={"limit": 7},
        math={"path": str(published("math500"))},
        reward={"limit": 5},
        mt_bench={"categories": ["math"], "limit": 3},
        alpaca_eval={},
    )
    found = asked_prompts(config)
    counts = {name: len(hashes) for name, hashes in found.items()}
    assert counts == {"gsm8k": 7, "math": 500, "reward": 5, "mt_bench": 6, "alpaca_eval": 805}
    line = published("mt_bench").joinpath("question.jsonl").read_text().splitlines()
    turn = next(json.loads(row) for row in line if json.loads(row)["category"] == "math")["turns"]
    assert prompt_hash([Message("user", turn[0])]) in found["mt_bench"]


def test_what_is_not_at_hand_is_left_to_the_benchmark_and_a_wrong_path_is_said(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    assert asked_prompts(EvalConfig(name="mt_bench", mt_bench={})) == {}
    with pytest.raises(UserError, match=r"eval\.gsm8k\.path"):
        asked_prompts(EvalConfig(name="gsm8k", gsm8k={"path": str(tmp_path / "none")}))
