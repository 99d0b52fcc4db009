"""Drawn responses are graded, paired right with wrong, cached in the open, and never mixed up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from plot_exp.config.dataset import DatasetConfig, SampledRejections
from plot_exp.data import sources
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.data.rejected import sampled
from plot_exp.data.rejected.sampled import sample_all
from plot_exp.data.tally import Tally
from plot_exp.errors import RunError, UserError

SETTINGS = SampledRejections(samples=3)
ROWS = [
    PreferenceExample(
        (Message("user", f"{n}+1?"),),
        (f"gold {n + 1}",),
        "c",
        "gsm8k",
        Origin("f", n),
        answer=str(n + 1),
    )
    for n in range(3)
]


class Model:
    """Answers the first prompt in both ways, the second always wrong, the third always right."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, prompts: Sequence[tuple[Message, ...]], settings: SampledRejections
    ) -> list[list[str]]:
        self.calls += 1
        assert [prompt[-1].content for prompt in prompts] == ["0+1?", "1+1?", "2+1?"]
        return [["it is 7", " it is 1 ", "1"], [" ", "8\u2028", "9"], ["3", "3", ""]]


def paired(
    cache_dir: Path,
    model: Model | None,
    identity: str = "m",
    settings: SampledRejections = SETTINGS,
) -> tuple[list[PreferenceExample], Tally]:
    tally = Tally("x")
    pairs = sample_all(
        ROWS, settings, tally, cache_dir=cache_dir, draw=model, model_identity=identity
    )
    return pairs, tally


def test_right_is_paired_with_wrong_and_gold_stands_in(tmp_path: Path) -> None:
    pairs, tally = paired(tmp_path, Model())
    assert [pair.responses for pair in pairs] == [("it is 1", "it is 7"), ("gold 2", "8")]
    assert tally.changed == {sampled.GOLD_CHOSEN: 1}
    assert tally.dropped == {sampled.NO_WRONG: 1}


def test_the_cache_is_inspectable_and_reused(tmp_path: Path) -> None:
    model = Model()
    first, _ = paired(tmp_path, model)
    (file,) = tmp_path.iterdir()
    records = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
    assert records[0] == {
        "prompt": [{"role": "user", "content": "0+1?"}],
        "answer": "1",
        "responses": ["it is 7", " it is 1 ", "1"],
        "right": [False, True, True],
    }
    second, tally = paired(tmp_path, model)
    assert second == first
    assert tally.dropped == {sampled.NO_WRONG: 1}
    assert model.calls == 1
    # A cached file is enough where no model is loaded.
    assert paired(tmp_path, None)[0] == first


def test_another_model_or_setting_draws_anew(tmp_path: Path) -> None:
    model = Model()
    paired(tmp_path, model, "m")
    paired(tmp_path, model, "other")
    paired(tmp_path, model, "m", SampledRejections(samples=3, temperature=0.5))
    assert model.calls == 3


def test_a_damaged_cache_is_drawn_anew(tmp_path: Path) -> None:
    model = Model()
    first, _ = paired(tmp_path, model)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text("utf-8")[:50], encoding="utf-8")
    assert paired(tmp_path, model)[0] == first
    assert model.calls == 2
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]


def test_without_a_model_or_with_too_few_responses_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a model to draw from"):
        paired(tmp_path, None)
    with pytest.raises(RunError, match="Drawing 4 responses"):
        paired(tmp_path, Model(), settings=SampledRejections(samples=4))
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        paired(tmp_path / "file" / "below", Model())


def test_through_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"question": f"{n}+1?", "answer": f"so\n#### {n + 1}"} for n in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = DatasetConfig(name="gsm8k", path=str(path), rejected="sampled")

    def draw(
        prompts: Sequence[tuple[Message, ...]], settings: SampledRejections
    ) -> list[list[str]]:
        return [["0"] * settings.samples for _ in prompts]

    with pytest.raises(ValueError, match="model_identity"):
        sources.read(config, [], cache_dir=tmp_path, draw=draw)
    split = sources.read(config, [], cache_dir=tmp_path, draw=draw, model_identity="m")
    assert (len(split.train), len(split.validation)) == (9, 1)
    assert all(e.responses == (f"so\n#### {e.answer}", "0") for e in split.train)
