"""The report of a run says what its files say, and says what they do not hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from plot_exp.errors import RunError, UserError
from plot_exp.report import curves, run, tokens
from plot_exp.report.contents import read

FILES = (
    "config.yaml",
    "environment.json",
    "metrics.json",
    "metrics.csv",
    "samples.jsonl",
    "data.json",
    "preference_distribution.json",
)
MakeRun = Callable[..., Path]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the drawing out where a test is about words."""
    for room in (curves, tokens):
        monkeypatch.setattr(room, "save", lambda figure, folder, file: None)


def report(run_dir: Path) -> str:
    run.write(run_dir)
    return (run_dir / "report.md").read_text(encoding="utf-8")


def test_the_headline_says_which_weights_were_measured(
    make_run: MakeRun, no_pictures: None
) -> None:
    run_dir = make_run()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    (run_dir / "metrics.json").write_text(json.dumps({**metrics, "train/exported_step": 20.0}))
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config.setdefault("trainer", {})["keep"] = {"best": "val/loss"}
    config.setdefault("optimizer", {})["ema"] = 0.9
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))

    said = "the average of the weights after step 20, the best by val/loss"
    assert f"Measured and exported: {said}." in report(run_dir).replace("\\", "")


def test_a_whole_run(make_run: MakeRun, nasty: str) -> None:
    run_dir = make_run()
    text = report(run_dir)
    assert "Left out" not in text
    assert "loss **dpo + plot (α = 1)**, seed 0, 300 optimizer steps of 16 examples" in text
    metrics = json.loads((run_dir / "metrics.json").read_text())
    after = metrics["val/reward_accuracy"]
    low, high = metrics["val/reward_accuracy/low"], metrics["val/reward_accuracy/high"]
    assert f"| {after:.3f} \\[{low:.3f}, {high:.3f}\\] | +0.332 |" in text
    assert "from 0.413 to 0.158 (-61.7 %)" in text
    assert "python -m plot_exp seed=0 'dataset.path=/my data/a.jsonl'" in text
    assert "is a reconstruction" in text
    assert "4 of 2700 training prompts also stand in validation and **were trained on**" in text
    page = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "<script>" not in page
    assert "<h1>no heading" not in page
    for row in metrics:
        if row.startswith("val/reward_accuracy/") and row.count("/") == 2:
            assert row.rpartition("/")[2] in text or row.endswith(("count", "low", "high"))


def test_every_picture_named_is_there_and_drawn(make_run: MakeRun) -> None:
    run_dir = make_run()
    named = re.findall(r"\]\((plots/[^)]+)\)", report(run_dir))
    assert len(named) == 9
    assert {run_dir / name for name in named} == set((run_dir / "plots").iterdir())
    for name in named:
        with Image.open(run_dir / name) as picture:
            colours = picture.convert("RGB").getcolors(maxcolors=2**24) or []
            assert len(colours) > 20, f"{name} shows nothing"


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("absent", FILES)
def test_what_is_missing_is_said_and_the_rest_is_written(make_run: MakeRun, absent: str) -> None:
    run_dir = make_run()
    (run_dir / absent).unlink()
    assert f"*Left out. `{absent}`: not there (" in report(run_dir)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("damaged", FILES)
def test_what_is_damaged_is_said_and_the_rest_is_written(make_run: MakeRun, damaged: str) -> None:
    run_dir = make_run()
    content = (run_dir / damaged).read_bytes()
    (run_dir / damaged).write_bytes(b"\xff\xfe" + content[:40])
    assert f"*Left out. `{damaged}`: is damaged (" in report(run_dir)


@pytest.mark.usefixtures("no_pictures")
def test_a_loss_without_plot_says_nothing_of_it(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "preference_distribution.json").unlink()
    config = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(re.sub(r"  plot:\n(    .*\n)+", "", config))
    text = report(run_dir)
    assert "*Left out. `preference_distribution.json`: not there (" in text
    assert "**PLOT**" not in text


@pytest.mark.usefixtures("no_pictures")
def test_one_sub_preference_is_not_shown_twice(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "metrics.json").write_text(
        '{"val/reward_accuracy": 0.75, "val/reward_accuracy/harmless-base": 0.75}'
    )
    assert "There is only one, harmless-base" in report(run_dir)


def test_a_torn_last_line_of_metrics_is_not_read(make_run: MakeRun) -> None:
    run_dir = make_run()
    with (run_dir / "metrics.csv").open("a") as file:
        file.write("310,9")
    history = read(run_dir).history
    assert history is not None
    assert history["train/loss"][0][-1] == 300


def test_a_short_run_without_validation_is_drawn(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "metrics.csv").write_text("step,train/loss,train/reward_margin\n1,0.5,nan\n")
    text = report(run_dir)
    assert "plots/loss.png" in text
    assert "seed 0, 1 optimizer step of 16 examples." in text


def test_empty_lists_and_unmeasured_values_draw_nothing(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "metrics.json").write_text('{"val/reward_accuracy": null}')
    (run_dir / "preference_distribution.json").write_text('{"favoured": [], "moved": []}')
    (run_dir / "data.json").write_text("{}")
    text = report(run_dir)
    assert "holds no `val/` or `eval/` number" in text
    assert "distance was not measured" in text
    assert "not measured | 0" not in text


def test_a_report_is_replaced_by_the_next(make_run: MakeRun) -> None:
    run_dir = make_run()
    assert report(run_dir) == report(run_dir)
    assert not list(run_dir.rglob("*.part"))


def test_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        run.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run directory"):
        run.write(tmp_path)


def test_a_disk_that_cannot_be_written_is_one_sentence(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "plots").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="could not be written"):
        run.write(run_dir)
    assert not (run_dir / "report.md").exists()
