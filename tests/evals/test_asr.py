"""Attack success rate from behaviours to numbers, on a small model; kills in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from plot_exp.config.attacks import ASRConfig
from plot_exp.config.endpoint import EndpointConfig
from plot_exp.config.model import ModelConfig
from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError
from plot_exp.evals.asr import AttackSuccess, build
from plot_exp.evals.asr_models import first_tokens
from plot_exp.evals.base import CannotRunError, Outcome, Subject, Tools, Workspace
from plot_exp.generators.base import Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy
from plot_exp.progress import silent

SHORT = "! ! ! !"
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 8,
    "limit": 3,
    "zero_shot": {"cases": 2, "max_new_tokens": 8},
    "sfs": {"rounds": 2, "samples": 3, "shots": 2, "max_new_tokens": 8, "shortest": 4},
    "pez": {"cases": 2, "steps": 4, "tokens": 4},
    "gbda": {"cases": 2, "steps": 4, "tokens": 4},
    "uat": {"steps": 1, "initial": SHORT},
    "gcg": {
        "steps": 4,
        "width": 8,
        "top_k": 8,
        "initial": SHORT,
        "check_every": 2,
        "save_seconds": 0,
    },
}


def benchmark(folder: Path, **changes: Any) -> AttackSuccess:
    tools = Tools(folder / "cache", 4, EndpointConfig(), list)
    return build(ASRConfig(**(SETTINGS | changes)), tools)


def subject(folder: Path) -> Subject:
    named = ModelConfig(name=str(folder))
    tokeniser = ChatTokeniser(load_tokenizer(named))
    return Subject(LocalGenerator(Policy(load_model(named)), tokeniser, 4), folder.name)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def without_time(folder: Path) -> dict[str, Any]:
    """Every record below a folder, by file, without what a clock measured."""
    found = {}
    for file in sorted(folder.rglob("*.jsonl")):
        kept = sorted(rows(file), key=lambda row: row["key"])
        for row in kept:
            for case in row.get("cases", []):
                case["seconds"] = 0
        found[str(file.relative_to(folder))] = kept
    return found


def without_clock(outcome: Outcome) -> Outcome:
    for facts in outcome.facts["attacks"].values():
        facts["seconds"] = 0
        facts["records"] = Path(facts["records"]).name
    return outcome


def test_all_six_attacks_give_numbers_samples_and_records(llama_dir: Path, tmp_path: Path) -> None:
    attacked = subject(llama_dir)
    outcome = benchmark(tmp_path).run(attacked, Workspace(tmp_path / "results"))
    for name in ("zero_shot", "sfs", "pez", "gbda", "uat", "gcg"):
        assert 0 <= outcome.metrics[f"asr/{name}"] <= 1
        assert outcome.metrics[f"asr/{name}/low"] <= outcome.metrics[f"asr/{name}"]
        folder = Path(outcome.facts["attacks"][name]["records"])
        for file in ("cases", "completions", "verdicts"):
            assert [rows(one) for one in folder.glob(f"{file}*.jsonl")]
        mine = [row for row in outcome.samples if row["attack"] == name]
        by_behaviour = [row["behaviour"] for row in mine]
        values = [
            sum(row["verdict"].startswith("success") for row in mine if row["behaviour"] == one)
            / by_behaviour.count(one)
            for one in set(by_behaviour)
        ]
        assert outcome.metrics[f"asr/{name}"] == pytest.approx(sum(values) / len(values))
        table = outcome.facts["tables"]["behaviours"]
        column = table["columns"].index(name)
        found = {row[0]: row[column] for row in table["rows"]}
        assert set(found) == set(by_behaviour)
        assert sum(found.values()) == pytest.approx(sum(values))
    row = outcome.samples[-1]
    asked = [[Message("user", row["prompt"])]]
    (answer,) = attacked.generator(asked, Sampling(max_new_tokens=8))[0]
    assert row["response"] == answer.text
    assert outcome.facts["judged_by"] == "refusal"
    assert any("looser" in note for note in outcome.notes)
    assert any("beyond eval.asr.limit" in note for note in outcome.notes)
    assert [point["at"] for point in outcome.facts["attacks"]["gcg"]["over_steps"]] == [2, 4]
    assert outcome.facts["attacks"]["gcg"]["same_ids"] == 1


def test_an_interrupted_evaluation_goes_on_to_the_same_records(
    llama_dir: Path, tmp_path: Path
) -> None:
    wanted = ["pez", "gcg", "zero_shot"]
    whole = benchmark(tmp_path / "whole", attacks=wanted).run(
        subject(llama_dir), Workspace(tmp_path / "whole/results")
    )

    class KilledError(Exception):
        pass

    calls = {"left": 1}

    def killed(items: Iterable[Any], label: str, total: int | None = None) -> Iterable[Any]:
        for item in items:
            calls["left"] -= 1
            if not calls["left"]:
                raise KilledError(label)
            yield item

    done, kills, allowed = None, 0, 2
    while done is None:
        calls["left"] = allowed
        allowed += 1
        try:
            done = benchmark(tmp_path / "cut", attacks=wanted).run(
                subject(llama_dir), Workspace(tmp_path / "cut/results", killed)
            )
        except KilledError:
            kills += 1
    assert kills >= 5
    assert without_clock(done) == without_clock(whole)
    assert without_time(tmp_path / "cut/cache") == without_time(tmp_path / "whole/cache")


def test_what_was_attacked_is_not_attacked_again_for_another_judge_or_a_larger_limit(
    llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = benchmark(tmp_path, attacks=["gcg"], limit=2)
    first.run(subject(llama_dir), Workspace(tmp_path / "one"))
    from plot_exp.attacks.gcg import GCG

    attacked: list[str] = []
    original = GCG.attack

    def counted(self: GCG, behaviour: Any, bar: Any = silent) -> Any:
        attacked.append(behaviour.id)
        return original(self, behaviour, bar)

    monkeypatch.setattr(GCG, "attack", counted)
    second = benchmark(tmp_path, attacks=["gcg"], limit=3)
    second.run(subject(llama_dir), Workspace(tmp_path / "two"))
    assert len(attacked) == 1
    assert first.settings != second.settings


def test_prompts_that_the_context_has_no_room_for_are_counted(
    llama_dir: Path, tmp_path: Path
) -> None:
    attacked = subject(llama_dir)
    assert attacked.local is not None
    attacked.local.max_prompt = 9
    outcome = benchmark(tmp_path, attacks=["uat"]).run(attacked, Workspace(tmp_path / "results"))
    assert outcome.facts["attacks"]["uat"]["cut"] == 3
    assert any(
        "3 of 3 prompts" in note and "lost their beginning" in note for note in outcome.notes
    )


def test_a_model_behind_an_endpoint_is_attacked_from_outside_alone(tmp_path: Path) -> None:
    class Endpoint:
        name = "served"

    with pytest.raises(CannotRunError, match="weights"):
        benchmark(tmp_path, attacks=["gcg"]).run(Subject(Endpoint(), "x"), Workspace(tmp_path))


def test_a_judge_that_is_not_there_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="judge"):
        benchmark(tmp_path, judge={"name": "endpoint"})
    with pytest.raises(UserError, match="prompts"):
        benchmark(tmp_path, judge={"name": "classifier", "model": str(tmp_path)})


def test_the_classifier_runs_as_a_local_model(
    llama_dir: Path, qwen_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.json"
    text = "[INST] {behavior} {generation}"
    file.write_text(
        json.dumps({"standard": text, "contextual": text + " {context}"}), encoding="utf-8"
    )
    judge = {"name": "classifier", "model": str(qwen_dir), "prompts": str(file)}
    one = benchmark(tmp_path, attacks=["uat"], judge=judge)
    outcome = one.run(subject(llama_dir), Workspace(tmp_path / "results"))
    # A random model says neither yes nor no: each verdict counts as no, and is counted.
    assert outcome.metrics["asr/uat"] == 0
    assert outcome.facts["attacks"]["uat"]["unreadable"] == 3
    assert any("3 of 3 verdicts" in note for note in outcome.notes)
    assert outcome.facts["judge"] == str(qwen_dir)


def test_other_words_in_the_classifiers_prompts_are_another_benchmark(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    judge = {"name": "classifier", "model": str(tmp_path), "prompts": str(file)}
    found = []
    for text in ("{behavior} {generation}", "Is it so? {behavior} {generation}"):
        prompts = {"standard": text, "contextual": text + " {context}"}
        file.write_text(json.dumps(prompts), encoding="utf-8")
        found.append(benchmark(tmp_path, judge=judge).settings)
    assert found[0] != found[1]


def test_a_completion_is_cut_to_the_classifiers_own_tokens(qwen_dir: Path) -> None:
    tokeniser = ChatTokeniser(load_tokenizer(ModelConfig(name=str(qwen_dir))))
    text = "The answer is 42, because seven times six is forty-two."
    assert first_tokens(tokeniser, text, 512) == text
    short = first_tokens(tokeniser, text, 4)
    assert text.startswith(short)
    assert len(tokeniser.tokenizer(short, add_special_tokens=False).input_ids) == 4


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_asr import SETTINGS, benchmark, subject
from plot_exp.evals.base import Workspace
gcg = SETTINGS["gcg"] | {"steps": 12, "check_every": 4}
folder = Path(sys.argv[3])
one = benchmark(folder, attacks=["uat", "gcg"], gcg=gcg)
one.run(subject(Path(sys.argv[2])), Workspace(folder / "results"))
"""


@pytest.mark.slow
def test_sigkill_in_the_middle_and_the_same_records_in_the_end(
    llama_dir: Path, tmp_path: Path
) -> None:
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}

    def start(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(llama_dir)]
        return subprocess.Popen([*command, str(folder)], env=environment)

    assert start(tmp_path / "whole").wait() == 0
    cut = tmp_path / "cut"
    process = start(cut)
    deadline = time.monotonic() + 120
    # Inside a case: its state is there, and its case is not.
    while not list(cut.rglob("unfinished/*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(cut.rglob("gcg-*/cases.jsonl"))
    # And a line that was being written.
    (cases,) = cut.glob("cache/asr/uat-*/cases.jsonl")
    with cases.open("ab") as file:
        file.write(b'{"key": "torn')
    assert start(cut).wait() == 0
    assert without_time(cut / "cache") == without_time(tmp_path / "whole/cache")
    assert not list(cut.rglob("unfinished"))
