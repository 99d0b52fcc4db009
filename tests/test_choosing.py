"""The worked example of docs/choosing.md, typed in as it stands: it trains, and its test holds."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from plot_exp.config.composition import compose
from plot_exp.config.losses import TERMS, term_sections
from plot_exp.errors import UserError
from plot_exp.losses import registry
from plot_exp.losses.composite import build

from loss_scores import context, ranked, scores, totals

TESTS = Path(__file__).parent
GUIDE = TESTS.parent / "docs/choosing.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


def blocks() -> dict[str, str]:
    """The guide's Python files by their names."""
    text = GUIDE.read_text(encoding="utf-8")
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", text, flags=re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the example; the term is forgotten afterwards."""
    known, registered = dict(TERMS), dict(registry._registered)
    for name, text in blocks().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    yield tmp_path
    TERMS.clear()
    TERMS.update(known)
    registry._registered.clear()
    registry._registered.update(registered)


def test_the_example_is_short_and_whole() -> None:
    assert set(blocks()) == {"hinge.py", "test_hinge.py"}
    code = [line for line in blocks()["hinge.py"].splitlines() if line.strip()]
    assert len(code) <= 30


def test_its_own_test_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "hinge", raising=False)
    found = runpy.run_path(str(folder / "test_hinge.py"))
    tests = [one for name, one in found.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()
    assert Path(sys.modules.pop("hinge").__file__ or "").parent == folder


def test_its_settings_compose_with_every_other_term(folder: Path) -> None:
    extension = f"extensions={folder}/hinge.py"
    config = compose([extension, "loss=hinge+plot", "loss.hinge.beta=0.5"])
    assert list(config.loss) == ["hinge", "plot"]
    assert config.loss["hinge"].model_dump() == {"weight": 1.0, "beta": 0.5}
    assert config.extensions == [str(folder / "hinge.py")]
    for message, override in (
        ("loss.hinge.beta=0", "loss.hinge.beta=0"),
        ("did you mean 'loss.hinge.beta'", "loss.hinge.bta=1"),
        ("'hinge' is not in loss=dpo|'hinge' is not in the chosen loss", "loss=dpo"),
    ):
        with pytest.raises(UserError, match=message):
            compose([extension, "loss=hinge", "loss.hinge.beta=1", override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "own.py fails: ZeroDivisionError"),
        ("x = 1", "own.py registers no term"),
        ("from hinge_parts import *", "own.py fails: ModuleNotFoundError"),
        (
            "from plot_exp.config.losses import DPOConfig\n"
            "from plot_exp.losses.dpo import DPO\n"
            "from plot_exp.losses.registry import register\n"
            "register('dpo', DPOConfig, DPO)\n",
            "'dpo' is a term of plot_exp",
        ),
    ],
)
def test_a_file_that_cannot_serve_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=message):
        compose([f"extensions={tmp_path}/own.py", "loss=dpo"])


def changed(folder: Path, old: str, new: str) -> str:
    """An override that loads the example with one thing wrong."""
    text = blocks()["hinge.py"]
    assert text.count(old) == 1
    (folder / "wrong.py").write_text(text.replace(old, new), encoding="utf-8")
    return f"extensions={folder}/wrong.py"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "HingeConfig(TermConfig)",
            "HingeConfig",
            "HingeConfig must be a subclass of .*TermConfig",
        ),
        ("class Hinge(Term)", "class Hinge", "Hinge must be a subclass of .*losses.base.Term"),
        ("config, context)", "config)", r"Hinge.__init__ must take \(self, config, context\)"),
        (
            ", responses, totals)",
            ", responses)",
            r"Hinge.forward must take \(self, policy, .*totals",
        ),
        ("Field(0.1, gt=0)", "Field(gt=0)", "the setting 'beta' needs a default"),
    ],
)
def test_classes_that_do_not_fit_are_told_why(
    folder: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"wrong.py fails: ValueError: 'hinge': .*{message}"):
        compose([changed(folder, old, new), "loss=hinge"])


@pytest.mark.parametrize("company", [{}, {"dpo": {}}])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "super().__init__(config.weight)",
            "pass",
            r"begin with super\(\).__init__\(config.weight\)",
        ),
        ("TermResult(loss.sum() / max(totals.pairs, 1))", "loss.mean()", r"must return TermResult"),
        ("loss.sum() / max(totals.pairs, 1)", "loss", r"shape \[3\].* must be one number"),
        ("loss.sum()", "loss.sum().detach()", "has no gradient"),
        ("    needs_reference: ClassVar[bool] = True\n", "", "declares needs_reference"),
    ],
)
def test_a_formula_that_cannot_train_is_told_why(
    folder: Path, old: str, new: str, message: str, company: dict[str, Any]
) -> None:
    """Alone as beside another term, whose reference it is not lent."""
    compose([changed(folder, old, new), "loss=hinge"])
    sections = term_sections({"hinge": {}, **company})
    responses = ranked((1, 1), (2, 1), (1, 3))
    policy, reference = (
        scores([[-1.0] * n for n in responses.length.tolist()]).leaves() for _ in range(2)
    )
    name = "+".join(sections)

    def step() -> None:
        composite = build(sections, context(torch.zeros(2, 1), [1, 0], [0, 1]))
        lent = reference if composite.needs_reference else None
        composite(policy, lent, responses, totals(responses))

    with pytest.raises(UserError, match=rf"loss={re.escape(name)}: hinge: .*{message}"):
        step()


def test_the_example_itself_is_sound(folder: Path) -> None:
    compose([f"extensions={folder}/hinge.py", "loss=hinge"])
    responses = ranked((1, 1))
    policy, reference = scores([[-1.0], [-3.0]]), scores([[-2.0], [-2.0]])
    composite = build(term_sections({"hinge": {}}), context(torch.zeros(2, 1), [1, 0], [0, 1]))
    found = composite(policy.leaves(), reference, responses, totals(responses))
    assert found["hinge"].loss.item() == pytest.approx(0.8)


def test_a_changed_file_is_read_again(folder: Path) -> None:
    path = folder / "hinge.py"
    compose([f"extensions={path}", "loss=hinge"])
    path.write_text(path.read_text().replace("Field(0.1, gt=0)", "Field(0.7, gt=0)"))
    assert compose([f"extensions={path}", "loss=hinge"]).loss["hinge"].beta == 0.7


@pytest.mark.slow
def test_it_trains_and_is_found_again(folder: Path, run_cli: Run) -> None:
    command = next(
        line.removeprefix("python -m plot_exp ").split()
        for line in GUIDE.read_text(encoding="utf-8").splitlines()
        if line.startswith("python -m plot_exp ")
    )
    quick = ["experiment=quick", "eval=none", "logger=none", "hydra.run.dir=run"]
    done = run_cli([*quick, "trainer.progress=false", *command], folder)
    assert done.returncode == 0, done.stdout + done.stderr

    config = yaml.safe_load((folder / "run/config.yaml").read_text())
    assert config["extensions"] == [str(folder / "hinge.py")]
    assert list(config["loss"]) == ["hinge", "plot"]
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["train/steps"] == 4
    rows = (folder / "run/metrics.csv").read_text()
    assert "train/loss/hinge" in rows

    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    again = run_cli([f"resume={folder / 'run'}"], elsewhere)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "is finished" in again.stdout
