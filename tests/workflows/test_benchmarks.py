"""Benchmarks run once, go on where they stopped, and say why where they cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.config.evals import EvalConfig, FluencyConfig, GSM8KConfig
from plot_exp.data.examples import Message
from plot_exp.data.overlap import prompt_hash
from plot_exp.errors import RunError, UserError
from plot_exp.evals.base import CannotRunError, Outcome, Subject, Tools
from plot_exp.progress import silent
from plot_exp.workflows import benchmarks
from plot_exp.workflows.benchmarks import Measured, Opened, measure, open_benchmarks
from plot_exp.workflows.outcomes import publish, without, write_outcomes


@dataclass
class Toy:
    """A benchmark that answers, raises, or remains incomplete."""

    name: str = "toy"
    raises: Exception | None = None
    complete: bool = True
    settings: dict = field(default_factory=lambda: {"limit": 3})
    runs: list = field(default_factory=list)

    def run(self, subject, workspace):
        self.runs.append((subject.identity, workspace.folder))
        if self.raises:
            raise self.raises
        rows = [
            {
                "prompt": [{"role": "user", "content": text}],
                "response": subject.identity + " " + text,
                "verdict": "good",
                "origin": "file, row 0",
            }
            for text in ("one", "two", "three")
        ]
        metrics = {f"{self.name}/score": 0.5, f"{self.name}/score/count": 3.0}
        return Outcome(metrics, rows, [f"{self.name}: 3 prompts."], complete=self.complete)


def run(tmp_path, *toys, identity="weights", refused=None, **changes):
    subject = Subject(SimpleNamespace(name="model"), identity)
    settings = {"reference": "r", "trained_on": frozenset(), "bar": silent, "seed": 0} | changes
    return measure(Opened(list(toys), refused or {}), subject, tmp_path / "kept", **settings)


def test_a_finished_benchmark_is_taken_again_for_the_same_weights_and_settings(tmp_path):
    toy = Toy()
    first = run(tmp_path, toy)
    assert run(tmp_path, toy).outcomes == first.outcomes
    assert len(toy.runs) == 1
    for change in ({"identity": "other"}, {"reference": "other"}, {"seed": 1}):
        run(tmp_path, toy, **change)
    toy.settings = {"limit": 4}
    run(tmp_path, toy)
    assert len(toy.runs) == 5
    assert len({folder for _, folder in toy.runs}) == 5


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"metrics": {}, "other": 1}'])
def test_a_damaged_outcome_is_measured_again(tmp_path, damage):
    toy = Toy()
    expected = run(tmp_path, toy).outcomes
    (path,) = (tmp_path / "kept").rglob("outcome.json")
    path.write_text(damage)
    assert run(tmp_path, toy).outcomes == expected
    assert len(toy.runs) == 2


def test_what_is_not_complete_is_tried_again(tmp_path):
    toy = Toy(complete=False)
    assert run(tmp_path, toy).metrics["eval/toy/score"] == 0.5
    run(tmp_path, toy)
    assert len(toy.runs) == 2


def test_one_that_cannot_run_or_breaks_stops_no_other_and_is_never_a_zero(tmp_path):
    found = run(
        tmp_path,
        Toy("a", CannotRunError("no judge")),
        Toy("b", RunError("the server went away")),
        Toy("c", UserError("bad file")),
        Toy("d"),
        refused={"e": "no data"},
    )
    assert found.refused == {
        "a": "no judge",
        "b": "the server went away",
        "c": "bad file",
        "e": "no data",
    }
    assert found.broken == {"b", "c"}
    assert found.metrics == {"eval/d/score": 0.5, "eval/d/score/count": 3.0}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Toy("f", KeyboardInterrupt()))


def test_prompts_that_were_trained_on_are_counted(tmp_path):
    trained_on = frozenset({prompt_hash([Message("user", " TWO ")]), "something else"})
    found = run(tmp_path, Toy(), trained_on=trained_on)
    assert found.metrics["eval/toy/overlap"] == 1.0
    assert "toy: 1 of its 3 prompts also stand in the run's training data." in (
        found.outcomes["toy"].notes
    )


def test_the_files_of_a_run_hold_both_sides(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    earlier = {"prompt": [{"role": "user", "content": "p"}], "before": "x", "after": "y"}
    (run_dir / "samples.jsonl").write_text(json.dumps(earlier) + "\n")
    after, before = run(tmp_path, Toy(), identity="new"), run(tmp_path, Toy(), identity="old")
    after.refused["other"] = "no judge"
    for _ in range(2):
        metrics = write_outcomes(run_dir, after, before)
    assert metrics["eval/toy/score"] == metrics["base/eval/toy/score"] == 0.5
    lines = (run_dir / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0] == earlier
    assert [(row["before"], row["after"]) for row in rows[1:]] == [
        (f"old {text}", f"new {text}") for text in ("one", "two", "three")
    ]
    told = json.loads((run_dir / "evaluations.json").read_text())
    assert told["toy"]["after"]["settings"] == {"seed": 0, "limit": 3}
    assert told["toy"]["before"]["answers"] == 3
    assert told["other"] == {"after": {"not_run": "no judge"}}
    refused = Measured(refused={"toy": "no attacker"})
    write_outcomes(run_dir, refused, None)
    told = json.loads((run_dir / "evaluations.json").read_text())
    assert told["toy"]["after"]["settings"] == {"seed": 0, "limit": 3}
    assert len((run_dir / "evals/toy.jsonl").read_text().splitlines()) == 3
    assert len((run_dir / "evals/base_toy.jsonl").read_text().splitlines()) == 3


def test_numbers_that_are_measured_again_leave_nothing_behind():
    old = {"eval/toy/a": 1.0, "base/eval/toy/a": 1.0, "eval/toys/a": 1.0, "val/x": 1.0}
    assert without(old, ["toy"]) == {"eval/toys/a": 1.0, "val/x": 1.0}


def test_wandb_gets_the_numbers_and_a_table(tmp_path):
    calls = []
    log = SimpleNamespace(
        summary=lambda metrics: calls.append(metrics),
        table=lambda *table: calls.append(table),
    )
    publish(log, {"eval/toy/score": 0.5}, run(tmp_path, Toy()))
    assert calls[0] == {"eval/toy/score": 0.5}
    name, columns, rows, _ = calls[1]
    assert (name, columns) == ("samples/toy", ["prompt", "response", "verdict"])
    assert rows[1] == ["two", "weights two", "good"]


def test_only_sections_that_are_there_are_opened(tmp_path, monkeypatch):
    tools = Tools(tmp_path, 4, EndpointConfig(), list)
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": "so\n#### 2"}) + "\n")
    config = EvalConfig(gsm8k=GSM8KConfig(path=str(path)), fluency=FluencyConfig())
    opened = open_benchmarks(config, tools)
    assert [one.name for one in opened.benchmarks] == ["gsm8k"]
    assert "no held-out example" in opened.refused["fluency"]
    assert benchmarks.chosen(EvalConfig()) == []
    assert Measured().metrics == {}
    with pytest.raises(CannotRunError, match=r"eval\.judge\.url"):
        tools.open_judge(EndpointConfig(), "MT-Bench")
