"""AlpacaEval on a model of one's own: random order, weighed verdicts, draws, nothing lost."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from plot_exp.config.benchmarks import AlpacaEvalConfig
from plot_exp.config.endpoint import EndpointConfig
from plot_exp.data.examples import Message
from plot_exp.errors import UserError
from plot_exp.evals.alpaca_eval import AlpacaEval, PublishedAnnotations, build
from plot_exp.evals.alpaca_eval_files import open_tables
from plot_exp.evals.alpaca_eval_records import Output, read_annotations, read_outputs
from plot_exp.evals.base import CannotRunError, Subject, Tools, Workspace
from plot_exp.evals.length_control_tables import Tables
from plot_exp.generators.base import Completion, Sampling
from plot_exp.judges.alpaca import own_prompt

from scripted import Scripted

JUDGE = EndpointConfig(url="http://localhost:1/v1", model="judge")
LABELS = ("m", "M")
BASELINE = [Output(f"question {n}", f"baseline {n}", "gpt", "ab"[n % 2]) for n in range(40)]


def tools(tmp_path: Path, judge: EndpointConfig = JUDGE) -> Tools:
    return Tools(tmp_path, 4, judge, lambda: [])


def bench(judge: Scripted, baseline: Sequence[Output] = BASELINE) -> AlpacaEval:
    difficulty = {one.instruction: 0.1 * place - 2 for place, one in enumerate(baseline)}
    tables = Tables(difficulty=difficulty)
    return AlpacaEval(baseline, tables, judge, own_prompt(LABELS), Sampling(max_new_tokens=9))


def prefers_mine(prompt: Sequence[Message]) -> Completion:
    """Sides with the text `mine` at nine to one, wherever it stands."""
    first = prompt[-1].content.index("mine") < prompt[-1].content.index("baseline")
    shares = {"m": 0.9 if first else 0.1, "M": 0.1 if first else 0.9}
    top = {label: math.log(0.5 * share) for label, share in shares.items()}
    return Completion(max(shares, key=shares.__getitem__), top_logprobs=(top,))


def mine(prompt: Sequence[Message]) -> str:
    """Sometimes shorter, sometimes longer than the baseline."""
    number = int(prompt[0].content.split()[1])
    return f"mine {number}" + "!" * (number * 7 % 13)


def test_the_order_is_drawn_and_undone(tmp_path: Path) -> None:
    judge, model = Scripted(prefers_mine, "j"), Scripted(mine, "model")
    found = bench(judge).run(Subject(model, "id"), Workspace(tmp_path, seed=3))
    assert found.metrics["alpaca_eval/win_rate"] == pytest.approx(90)
    assert found.metrics["alpaca_eval/win_rate/count"] == 40
    assert found.metrics["alpaca_eval/discrete_win_rate"] == 100
    # The fit's L1 penalty draws a little towards one half.
    assert found.metrics["alpaca_eval/lc_win_rate"] == pytest.approx(90, abs=2)
    first = [prefers_mine(prompt).text == "m" for prompt, _ in judge.asked]
    assert 8 < sum(first) < 32
    assert {sampling for _, sampling in judge.asked} == {Sampling(max_new_tokens=1, top_logprobs=5)}
    assert {sampling for _, sampling in model.asked} == {Sampling(max_new_tokens=9, seed=3)}
    assert "40 of 40 verdicts are weighed" in found.notes[0]
    assert "prompt is this project's own" in found.notes[0]


def test_a_judge_of_places_alone_comes_out_even(tmp_path: Path) -> None:
    many = [Output(f"question {n}", f"baseline {n}", "gpt") for n in range(400)]
    found = bench(Scripted(lambda prompt: "m"), many).run(
        Subject(Scripted(mine), "id"), Workspace(tmp_path)
    )
    assert found.metrics["alpaca_eval/win_rate"] == pytest.approx(50, abs=7)
    assert "0 of 400 verdicts are weighed" in found.notes[0]


def test_lengths_that_always_differ_alike_leave_the_length_controlled_rate_out(
    tmp_path: Path,
) -> None:
    def longer(prompt: Sequence[Message]) -> str:
        number = int(prompt[0].content.split()[1])
        return f"mine {number}" + "!" * (200 + number % 3)

    found = bench(Scripted(prefers_mine)).run(Subject(Scripted(longer), "id"), Workspace(tmp_path))
    assert found.metrics["alpaca_eval/win_rate"] == pytest.approx(90)
    assert "alpaca_eval/lc_win_rate" not in found.metrics
    assert any("nothing tells length apart" in note for note in found.notes)


def test_equal_answers_draw_unasked_and_unreadable_verdicts_are_counted(tmp_path: Path) -> None:
    def answer(prompt: Sequence[Message]) -> str:
        number = int(prompt[0].content.split()[1])
        return f"baseline {number}" if number < 10 else f"mine {number}"

    def judged(prompt: Sequence[Message]) -> Completion | str:
        return "neither" if "question 39" in prompt[-1].content else prefers_mine(prompt)

    judge = Scripted(judged)
    found = bench(judge).run(Subject(Scripted(answer), "id"), Workspace(tmp_path))
    assert len(judge.asked) == 30
    assert found.metrics["alpaca_eval/draws"] == 10
    assert found.metrics["alpaca_eval/unjudged"] == 1
    assert found.metrics["alpaca_eval/win_rate/count"] == 39
    assert found.metrics["alpaca_eval/win_rate"] == pytest.approx(100 * (10 * 0.5 + 29 * 0.9) / 39)
    assert any("1 of 40 have no readable preference" in note for note in found.notes)
    assert [one["verdict"] for one in found.samples][39] == "unreadable"


def test_it_goes_on_where_it_stopped_and_leaves_the_published_files(tmp_path: Path) -> None:
    judge, model = Scripted(prefers_mine, stops_after=25), Scripted(mine, "m")
    with pytest.raises(KeyboardInterrupt):
        bench(judge).run(Subject(model, "id"), Workspace(tmp_path))
    judge.stops_after = None
    found = bench(judge).run(Subject(model, "id"), Workspace(tmp_path))
    assert (len(model.asked), len(judge.asked)) == (40, 40)
    annotations = read_annotations(tmp_path / "annotations.json")
    assert [one.preference for one in annotations] == pytest.approx([1.9] * 40)
    assert (annotations[0].baseline_name, annotations[0].model_name) == ("gpt", "m")
    outputs = read_outputs(tmp_path / "model_outputs.json")
    assert outputs[3] == Output("question 3", "mine 3" + "!" * 8, "m", "b")
    again = PublishedAnnotations(annotations, bench(judge).tables)
    scored = again.run(Subject(model, "id"), Workspace(tmp_path))
    assert scored.metrics == found.metrics


def test_published_annotations_are_scored_through_the_settings(tmp_path: Path) -> None:
    data = os.environ.get("PLOT_EXP_DATA")
    if not data:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    file = Path(data, "alpaca_eval", "claude-2.1", "annotations.json")
    made = build(AlpacaEvalConfig(annotations=str(file)), tools(tmp_path, EndpointConfig()))
    found = made.run(Subject(Scripted(mine), "id"), Workspace(tmp_path))
    assert found.metrics["alpaca_eval/win_rate"] == pytest.approx(15.7335067)
    assert found.metrics["alpaca_eval/lc_win_rate"] == pytest.approx(25.2519439)
    assert "published annotations of claude-2.1" in found.notes[0]
    assert len(found.samples) == 805
    bare = replace(made, tables=replace(made.tables, weights={}))
    assert bare.settings != made.settings, "other tables make other numbers"


def test_the_published_baseline_is_what_is_answered(tmp_path: Path) -> None:
    if not os.environ.get("PLOT_EXP_DATA"):
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    made = build(AlpacaEvalConfig(limit=10), tools(tmp_path))
    assert isinstance(made, AlpacaEval)
    assert len(made.baseline) == 10
    assert len({one.dataset for one in made.baseline}) == 5
    assert made.tables.difficulty.keys() >= {one.instruction for one in made.baseline}
    judged = replace(made, judge=Scripted(lambda prompt: "m"))
    model = Scripted(lambda prompt: prompt[0].content)
    found = judged.run(Subject(model, "id"), Workspace(tmp_path))
    assert found.metrics["alpaca_eval/win_rate/count"] == 10
    # Ten verdicts without a lean are too few: 50 by an empty fit is not reported.
    assert "alpaca_eval/lc_win_rate" not in found.metrics
    assert any("too few" in note for note in found.notes)
    assert json.dumps(judged.settings) == json.dumps(replace(judged).settings)
    other = replace(judged, prompt=own_prompt(("A", "B")))
    assert other.settings != judged.settings


def test_without_judge_or_data_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("PLOT_EXP_DATA"):
        with pytest.raises(CannotRunError, match="AlpacaEval needs a judge"):
            build(AlpacaEvalConfig(), tools(tmp_path, EndpointConfig()))
    with pytest.raises(UserError, match="there is no such folder"):
        build(AlpacaEvalConfig(path=str(tmp_path / "none")), tools(tmp_path))
    with pytest.raises(CannotRunError, match="needs the baseline's outputs"):
        build(AlpacaEvalConfig(path=str(tmp_path)), tools(tmp_path))
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    monkeypatch.setattr(
        "plot_exp.evals.alpaca_eval_files._from_hub", lambda *names: dict.fromkeys(names)
    )
    with pytest.raises(CannotRunError, match="needs its published files"):
        build(AlpacaEvalConfig(), tools(tmp_path))


def test_a_hub_out_of_reach_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    asked: list[str] = []
    error: Exception = LocalEntryNotFoundError("no network")

    def download(_: str, file: str, **__: str) -> str:
        asked.append(file)
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    tables, outputs = open_tables(None, required=False)
    assert (tables.difficulty, outputs, len(asked)) == ({}, [], 1)
    with pytest.raises(CannotRunError, match=r"eval\.alpaca_eval\.path"):
        open_tables(None)
    error = EntryNotFoundError("it has none")
    asked.clear()
    open_tables(None, required=False)
    assert len(asked) == 3, "a file that is not there says nothing of the others"
