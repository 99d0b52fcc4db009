"""task=evaluate measures both sides on the same prompts and leaves the run's files in accord."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from plot_exp.__main__ import main
from plot_exp.errors import UserError
from plot_exp.generators.local import LocalGenerator

from fake_server import Seen, chat, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def run(quick_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run, with the cache of its base, in a folder of its own."""
    shutil.copytree(quick_run, tmp_path / "run")
    shutil.copytree(quick_run.parent / "outputs/cache", tmp_path / "outputs/cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    return tmp_path / "run"


@pytest.fixture
def problems(tmp_path: Path) -> list[str]:
    """Overrides that name a small file of problems."""
    rows = [{"question": f"{n} plus {n}?", "answer": f"so\n#### {2 * n}"} for n in range(5)]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"eval.gsm8k.path={path}", "eval.gsm8k.max_new_tokens=8"]


def evaluate(*overrides: str) -> int:
    return main(["task=evaluate", "logger=none", "trainer.progress=false", *overrides])


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def test_other_settings_measure_before_and_after_anew(run: Path) -> None:
    before = metrics_of(run)
    assert evaluate(f"run={run}", "eval.generations=14", "eval.max_new_tokens=5") == 0
    after = metrics_of(run)
    for prefix in ("", "base/"):
        assert after[f"{prefix}eval/response_length/count"] == 14
        assert after[f"{prefix}eval/response_length"] <= 5
        same = f"{prefix}val/logp_accuracy/sum"
        assert after[same] == pytest.approx(before[same])
    assert len((run / "samples.jsonl").read_text().splitlines()) == 14
    assert after["train/steps"] == before["train/steps"]


def test_benchmarks_join_the_runs_numbers_and_go_on_at_what_is_missing(
    run: Path, problems: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    before = metrics_of(run)
    samples = (run / "samples.jsonl").read_text()
    chosen = ["eval=gsm8k", *problems]
    assert evaluate(f"run={run}", *chosen) == 0
    after = metrics_of(run)
    assert {key: after[key] for key in before} == before
    for prefix in ("", "base/"):
        assert after[f"{prefix}eval/gsm8k/strict/count"] == 5
        assert 0 <= after[f"{prefix}eval/gsm8k/flexible"] <= 1
    assert after["eval/gsm8k/overlap"] == 0
    assert (run / "samples.jsonl").read_text().startswith(samples)
    assert "5 of 5 problems" in capsys.readouterr().out

    def fail(*_, **__):
        raise AssertionError("answered again")

    monkeypatch.setattr(LocalGenerator, "__call__", fail)
    assert evaluate(f"run={run}", *chosen) == 0
    assert metrics_of(run) == after


def test_a_benchmark_that_cannot_run_says_why_and_is_no_zero(
    run: Path, problems: list[str], capsys
) -> None:
    config = ["eval=reasoning", *problems, "eval.gsm8k.limit=2"]
    assert evaluate(f"run={run}", *config, "eval.base=false", "eval.math.path=none") == 2
    assert "eval.math.path=none does not exist" in capsys.readouterr().err
    assert evaluate(f"run={run}", "eval=mt_bench") == 2
    assert "nothing could be measured: mt_bench: " in capsys.readouterr().err
    assert not any("mt_bench" in key for key in metrics_of(run))
    assert evaluate("eval=mt_bench", "hydra.run.dir=nothing") == 2
    assert not Path("nothing").exists()


def test_a_model_by_itself_is_measured_in_a_folder_of_its_own(
    qwen_dir: Path, tmp_path: Path, problems: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ["model=hf", f"model.name={qwen_dir}", "hydra.run.dir=alone"]
    assert evaluate(*model, "eval=quick") == 2
    assert "eval=reasoning" in capsys.readouterr().err
    assert evaluate(*model, "eval=gsm8k", *problems) == 0
    found = metrics_of(tmp_path / "alone")
    assert found["eval/gsm8k/strict/count"] == 5
    assert not any(key.startswith("base/") for key in found)
    rows = (tmp_path / "alone/samples.jsonl").read_text().splitlines()
    assert {json.loads(row)["before"] for row in rows} == {None}
    assert "GSM8K" in (tmp_path / "alone/report.md").read_text()


def test_a_served_model_is_measured_without_its_weights(
    tmp_path: Path, problems: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-9876543210")

    def answer(seen: Seen, number: int) -> dict:
        n = int(seen.body["messages"][-1]["content"].split()[0])
        return chat(f"so\n#### {2 * n if n < 3 else 0}")

    with serving(answer) as server:
        served = [f"eval.endpoint.url={server.url}", "eval.endpoint.model=theirs"]
        assert evaluate("eval=gsm8k", *problems, *served, "hydra.run.dir=served") == 0
        assert len(server.seen) == 5
    assert metrics_of(tmp_path / "served")["eval/gsm8k/strict"] == pytest.approx(3 / 5)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(b"sk-secret" in path.read_bytes() for path in written)


def test_training_ends_with_the_benchmarks(run: Path, problems: list[str]) -> None:
    overrides = ["experiment=quick", "logger=none", "trainer.progress=false", "eval=gsm8k"]
    assert main([*overrides, *problems, "hydra.run.dir=trained"]) == 0
    found = metrics_of(Path("trained"))
    assert found["eval/gsm8k/strict/count"] == found["base/eval/gsm8k/strict/count"] == 5
    assert found["train/steps"] == 4


def test_damaged_numbers_are_named(run: Path, capsys) -> None:
    (run / "metrics.json").write_text("{")
    assert evaluate(f"run={run}") == 2
    assert "metrics.json is damaged" in capsys.readouterr().err
    assert sorted(path.name for path in Path("outputs").iterdir()) == ["cache"]


def test_published_annotations_take_no_model_and_stand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)

    def fail(*_, **__):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("plot_exp.workflows.evaluate.open_start", fail)
    names = {"generator_1": "gpt", "generator_2": "theirs", "annotator": "judge"}
    rows = [
        {"instruction": f"q{n}", "output_1": "a", "output_2": "b", "preference": value, **names}
        for n, value in enumerate([1, 2, 1.25, None, float("nan")])
    ]
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(rows))
    chosen = ["eval=alpaca_eval", f"eval.alpaca_eval.annotations={file}"]
    chosen.append(f"eval.alpaca_eval.path={tmp_path}")  # without tables
    assert evaluate(*chosen, "hydra.run.dir=alone") == 0
    found = metrics_of(tmp_path / "alone")
    assert found["eval/alpaca_eval/win_rate"] == pytest.approx(125 / 3)
    assert found["eval/alpaca_eval/unjudged"] == 2
    assert "eval/alpaca_eval/lc_win_rate" not in found
    assert "measured by itself and not trained here" in (tmp_path / "alone/report.md").read_text()
    assert len((tmp_path / "alone/evals/alpaca_eval.jsonl").read_text().splitlines()) == 5
    assert evaluate("eval=values", chosen[1], "hydra.run.dir=nothing") == 2
    assert "by themselves" in capsys.readouterr().err


def test_training_says_before_it_begins_what_cannot_be_measured_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)

    def reached(*_, **__):
        raise UserError("data are read")

    monkeypatch.setattr("plot_exp.workflows.opening.prepare", reached)
    train = ["logger=none", "trainer.progress=false", "hydra.run.dir=run"]
    assert main([*train, "eval=mt_bench"]) == 2
    said = capsys.readouterr()
    assert "mt_bench will not be measured after training: MT-Bench needs" in said.out
    assert "data are read" in said.err
    assert main([*train, "eval=lm_eval"]) == 2
    assert "eval.lm_eval.tasks is empty" in capsys.readouterr().err
    assert main([*train, "eval=mt_bench", "eval.judge.url=http://localhost/v1"]) == 2
    assert "eval.judge.url=http://localhost/v1 needs eval.judge.model" in capsys.readouterr().err
