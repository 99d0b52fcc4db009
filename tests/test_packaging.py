"""The package outside its repository, and the files that a clone is built from."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

from readme_commands import SkippedError, commands, quick

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_runs_outside_the_repository(tmp_path: Path) -> None:
    wheels, site, elsewhere = tmp_path / "wheels", tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("the build backend hatchling can be neither found nor fetched")
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "plot_exp", *arguments],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=environment,
            check=False,
        )

    assert "dpo" in typed("--help").stdout
    composed = typed("--cfg", "job", "loss=sft+plot", "experiment=quick")
    assert yaml.safe_load(composed.stdout)["name"] == "quick"
    assert str(site / "plot_exp" / "conf") in typed("--info", "searchpath").stdout
    assert typed("los=dpo").returncode == 2
    assert list(elsewhere.iterdir()) == []


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    listed = [*project["dependencies"], *chain.from_iterable(extras)]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        pin.name.lower().replace("_", "-"): pin
        for pin in (Requirement(line) for line in lines if line and not line.startswith("#"))
    }
    for requirement in map(Requirement, listed):
        name = requirement.name.lower().replace("_", "-")
        if name == "plot-exp":
            continue
        (pin,) = pins.pop(name).specifier
        assert pin.version in requirement.specifier, name
    assert pins == {}, "pinned, but nothing asks for it"


def test_the_lowest_admitted_versions_are_the_ones_that_are_tested() -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [
        *project["dependencies"],
        *chain.from_iterable(extras[name] for name in ("exact", "lora", "quantised", "test-tools")),
    ]
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    lowest = {}
    for requirement in map(Requirement, listed):
        if requirement.name != "plot-exp":
            (least,) = [one.version for one in requirement.specifier if one.operator == ">="]
            lowest[requirement.name.lower()] = Version(least)
    tested = {pin.name.lower(): Version(next(iter(pin.specifier)).version) for pin in pins}
    assert tested == lowest


def test_a_newer_python_and_older_engines_are_allowed() -> None:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    assert "2.11.0" in ranges["torch"]
    assert "5.17.0" in ranges["transformers"]
    assert "3.12.0" in SpecifierSet(project["requires-python"])


def test_make_says_which_python_is_needed(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    done = subprocess.run(
        ["make", "demo", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stdout
    assert "Python 3.9.1" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_without_a_target_lists_the_targets() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert len(targets) >= 8
    assert [target for target in targets if f"make {target} " not in shown] == []


def test_readme_commands_are_read_and_made_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
```sh
make demo                     # the default
python -m plot_exp \\
    dataset=hh_rlhf dataset.path=path/to/test.jsonl.gz
python -m plot_exp model=qwen7b loss=dpo+plot
python -m plot_exp resume=RUN_DIR
git clone somewhere
```
```text
python -m plot_exp not=a_command
```
"""
    found = list(commands(text))
    assert [shlex.join(words[:2]) for words in found] == [
        "make demo",
        *["python -m"] * 3,
        "git clone",
    ]
    (tmp_path / "hh" / "test.jsonl.gz").parent.mkdir()
    (tmp_path / "hh" / "test.jsonl.gz").touch()
    (tmp_path / "quick" / "one" / "model").mkdir(parents=True)
    monkeypatch.setenv("PLOT_EXP_DATA", str(tmp_path))
    asked = [quick(words, tmp_path)[3:] for words in found[:4]]
    assert asked == [
        ["experiment=quick"],
        ["dataset=hh_rlhf", f"dataset.path={tmp_path}/hh/test.jsonl.gz", "experiment=quick"],
        ["model=qwen7b", "loss=dpo+plot", "--cfg", "job"],
        [f"resume={tmp_path}/quick/one"],
    ]
    with pytest.raises(SkippedError, match="not a plot_exp command"):
        quick(found[4], tmp_path)
    monkeypatch.delenv("PLOT_EXP_DATA")
    with pytest.raises(SkippedError, match="PLOT_EXP_DATA is not set"):
        quick(found[1], tmp_path)
