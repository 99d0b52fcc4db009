"""Whole runs with each form of the reference, and what the choice says."""

from __future__ import annotations

import csv
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from plot_exp.config.combinations import check
from plot_exp.config.composition import compose
from plot_exp.errors import UserError
from plot_exp.models.policy import Policy
from plot_exp.models.reference_cache import ReferenceCache
from plot_exp.workflows import train
from plot_exp.workflows.models import open_saved

ADAPTER = ("model.lora.rank=4", "optimizer.lr=1e-2")
Trained = Callable[..., Path]


@pytest.fixture
def trained(qwen_dir: Path, tmp_path: Path) -> Trained:
    """`trained(name, *overrides)`: the folder of a short run of a small random model."""

    def run(name: str, *overrides: str) -> Path:
        config = compose(
            [
                "model=hf",
                f"model.name={qwen_dir}",
                "loss=dpo",
                "logger=csv",
                "eval=none",
                "dataset.limit=12",
                "dataset.validation_limit=4",
                "trainer.max_steps=3",
                "trainer.batch_size=4",
                "trainer.microbatch_size=2",
                "trainer.validate_every=3",
                "trainer.log_every=1",
                "trainer.progress=false",
                f"cache_dir={tmp_path}/cache",
                *overrides,
            ]
        )
        check(config)
        train.run(config, tmp_path / name)
        return tmp_path / name

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def logged(run: Path, key: str) -> list[float]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [(), ADAPTER])
def test_every_form_trains_the_same_weights(trained: Trained, adapter: tuple[str, ...]) -> None:
    """In fp64; the architecture's norms run in fp32, so batches of another width round apart."""
    forms = ["copy", "cached", *(["adapter_off"] if adapter else [])]
    runs = [
        trained(form, f"reference_form={form}", "trainer.precision=64-true", *adapter)
        for form in forms
    ]
    first = weights(runs[0])
    for run in runs[1:]:
        for name, tensor in weights(run).items():
            torch.testing.assert_close(tensor, first[name], rtol=1e-6, atol=1e-6)
        for key in ("train/reward_margin", "val/reward_margin"):
            assert logged(run, key) == pytest.approx(logged(runs[0], key), rel=1e-5, abs=1e-7)
    assert logged(runs[0], "val/reward_margin")[-1] != 0


@pytest.mark.slow
def test_what_is_chosen_is_said_and_kept_scores_are_shared(
    trained: Trained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fillings: list[Path] = []
    plain = ReferenceCache._fill

    def counted(self: ReferenceCache, *args: Any) -> Any:
        fillings.append(self.path)
        return plain(self, *args)

    monkeypatch.setattr(ReferenceCache, "_fill", counted)

    def said(name: str, *overrides: str) -> str:
        trained(name, *overrides)
        return capsys.readouterr().out

    assert "a frozen copy, since the run is shorter" in said("short", "trainer.max_steps=1")
    assert "adapter off, since the run is" in said("lora", "trainer.max_steps=1", *ADAPTER)
    assert "other prompts" in said("kto", "loss=kto")
    assert not fillings
    assert "reference: scores kept in" in said("one")
    assert len(fillings) == 2  # both splits
    # Another seed, another loss, an adapter and a shorter run find everything there.
    for name, other in {
        "loss": ("loss=aot", "seed=1"),
        "adapter": ADAPTER,
        "short_now": ("trainer.max_steps=1",),
    }.items():
        assert "reference: scores kept in" in said(name, *other)
    assert len(fillings) == 2
    said("precision", "trainer.precision=64-true")
    assert len(fillings) == 4
    said("fewer", "dataset.limit=10")
    assert len(fillings) == 5  # the validation split stayed
    said("sft", "loss=sft", "dataset.limit=8")
    assert len(fillings) == 5  # no term reads the training split's


@pytest.mark.slow
def test_a_cached_reference_is_not_kept_in_memory(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []

    def fit(*args: Any, **options: Any) -> Any:
        gc.collect()
        alive.append(sum(isinstance(one, Policy) for one in gc.get_objects()))
        return plain(*args, **options)

    plain = train._fit
    monkeypatch.setattr(train, "_fit", fit)
    gc.collect()
    before = sum(isinstance(one, Policy) for one in gc.get_objects())
    trained("copy", "reference_form=copy")
    trained("cached", "reference_form=cached")
    gc.collect()
    assert [count - before for count in alive] == [2, 1]


@pytest.mark.slow
def test_an_adapter_is_exported_alone_and_trained_on(
    trained: Trained, qwen_dir: Path, tmp_path: Path
) -> None:
    """A second run starts from the first's adapter; its reference is that start."""
    alone = trained("alone", "model.lora.export=adapter", *ADAPTER)
    merged = trained("merged", *ADAPTER)
    assert sorted(path.name for path in (alone / "model").glob("*.safetensors")) == [
        "adapter_model.safetensors"
    ]
    config = compose(["model=hf", f"model.name={qwen_dir}"])
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        found = open_saved(config, alone / "model").policy.model(input_ids=ids).logits
        whole = AutoModelForCausalLM.from_pretrained(merged / "model")(input_ids=ids).logits
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)

    started = (f"model.name={alone}/model", "model.lora.rank=4", "optimizer.lr=1e-2")
    for form in ("adapter_off", "cached"):
        run = trained(f"on_{form}", *started, f"reference_form={form}")
        # The policy begins where its reference stands: no rewards yet, and then some.
        assert logged(run, "train/reward_margin")[0] == pytest.approx(0, abs=1e-5)
        assert abs(logged(run, "train/reward_margin")[-1]) > 1e-3
    before, after = (tmp_path / name / "model" for name in ("merged", "on_adapter_off"))
    assert (
        load_file(before / "model.safetensors").keys()
        == load_file(after / "model.safetensors").keys()
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=dpo", "reference_form=adapter_off"], "there is no adapter to switch off"),
        (
            ["loss=dpo", "reference=a/b", "reference_form=adapter_off", "model.lora.rank=2"],
            "weights of its own",
        ),
        (["loss=tdpo", "reference_form=cached"], "whole distributions"),
        (["loss=dpo", "reference_form=cache"], "did you mean 'cached'"),
    ],
)
def test_a_form_that_cannot_be_is_refused_at_once(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(compose(overrides))


@pytest.mark.slow
def test_a_resumed_run_keeps_the_form_that_it_began_with(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run fills the cache in between, which a run of this length would take by now."""
    short = ("trainer.max_steps=1",)
    run = trained("short", *short)
    expected = weights(run)
    trained("long")
    (run / "metrics.json").unlink()
    capsys.readouterr()

    trained("short", *short, f"resume={run}")

    assert "reference: a frozen copy" in capsys.readouterr().out
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(run).items())
