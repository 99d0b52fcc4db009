"""Each of DPO's relatives trains through the whole workflow, on the demo and on real files."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plot_exp.config.combinations import check
from plot_exp.config.composition import compose
from plot_exp.workflows import train

pytestmark = pytest.mark.slow

DATA = os.environ.get("PLOT_EXP_DATA")
RELATIVES = ["ipo", "simpo", "cpo", "orpo", "dpop", "kto", "tdpo", "otpo", "emo"]
COUPLINGS = ["exact", "carried", "microbatch"]
LAYOUTS = ["padded", "shared", "packed"]
# Nine terms, nine combinations; tests/losses/test_every_term.py tries them all on one step.
ON_DEMO = [
    (name, COUPLINGS[place % 3], LAYOUTS[place // 3]) for place, name in enumerate(RELATIVES)
]
Trained = Callable[..., dict[str, list[float]]]


@pytest.fixture
def trained(qwen_dir: Path, tmp_path: Path) -> Trained:
    """`trained(*overrides)`: three steps of a small random model, and every logged number."""

    def run(*overrides: str) -> dict[str, list[float]]:
        config = compose(
            [
                "model=hf",
                f"model.name={qwen_dir}",
                "logger=none",
                "eval=none",
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
        folder = tmp_path / "run"
        train.run(config, folder)
        before = load_file(qwen_dir / "model.safetensors")
        after = load_file(folder / "model/model.safetensors")
        assert any(not torch.equal(before[key], after[key]) for key in after)
        return logged(folder)

    return run


def logged(folder: Path) -> dict[str, list[float]]:
    """Every number of metrics.csv, by its name."""
    found: dict[str, list[float]] = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value:
                    found.setdefault(key, []).append(float(value))
    return found


def assert_sound(found: dict[str, list[float]], *terms: str) -> None:
    for term in terms:
        assert len(found[f"train/loss/{term}"]) == 3
        assert len(found[f"val/loss/{term}"]) == 1
    # The direction of a gradient of zero, where a batch lacks a side, is no number.
    measured = {key: row for key, row in found.items() if not key.startswith("train/grad_cosine")}
    assert all(math.isfinite(value) for row in measured.values() for value in row)
    # A batch may lack one of the sides that a term compares.
    assert any(norm > 0 for norm in found["train/grad_norm"])


@pytest.mark.parametrize(("name", "coupling", "layout"), ON_DEMO)
def test_on_the_demo(trained: Trained, name: str, coupling: str, layout: str) -> None:
    """Beside PLOT, which is coupled, so that the coupling matters."""
    found = trained(
        f"loss={name}+plot",
        f"trainer.coupling={coupling}",
        f"trainer.layout={layout}",
        "dataset.size=70",
        "dataset.limit=16",
        "dataset.validation_limit=7",
    )
    assert_sound(found, name, "plot")


@pytest.mark.skipif(DATA is None, reason="PLOT_EXP_DATA names no folder with HH-RLHF")
@pytest.mark.parametrize("names", [RELATIVES[:3], RELATIVES[3:6], RELATIVES[6:]])
def test_on_hh_rlhf(trained: Trained, names: list[str]) -> None:
    found = trained(
        f"loss={'+'.join(names)}",
        "dataset=hh_rlhf",
        f"dataset.path={DATA}/hh-rlhf/harmless-base/test.jsonl.gz",
        "dataset.limit=16",
        "dataset.validation_limit=6",
        "dataset.max_length=256",
    )
    assert_sound(found, *names)


@pytest.mark.parametrize(
    ("loss", "layout"),
    [("kto", "packed"), ("aot_unpaired", "shared"), ("kto+aot_unpaired+plot+sft", "padded")],
)
def test_on_labelled_responses(trained: Trained, tmp_path: Path, loss: str, layout: str) -> None:
    rows = [
        {"prompt": f"how many are {n}?", "completion": f"seven {n}", "label": n % 3 != 0}
        for n in range(24)
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = trained(
        f"loss={loss}",
        "dataset=jsonl",
        f"dataset.path={path}",
        "dataset.validation_fraction=0.3",
        f"trainer.layout={layout}",
    )
    assert_sound(found, *loss.split("+"))
    if "kto" in loss:
        # At the start policy and reference are one.
        assert found["train/kto/z"][0] == pytest.approx(0, abs=1e-4)
        assert len(found["val/kto/z"]) == 1
