"""Files from elsewhere that are hostile or broken end in one sentence, quickly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from plot_exp import reading
from plot_exp.config.schema import load
from plot_exp.data.behaviour_files import harmbench
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError
from plot_exp.reading import Limits, parse_yaml, plain_yaml, read_json, read_text, use_limits
from plot_exp.report import contents

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"an alias \(\*a\)"),
        ("[" * 5000, "nested too deeply"),
        ("a: !!python/object/apply:os.getcwd []", "python/object"),
        ("a: [", "is not a configuration"),
    ],
)
def test_a_run_directory_cannot_do_harm_by_its_settings(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "config.yaml")
    (tmp_path / "metrics.json").write_text('{"val/reward_accuracy": 0.5}')
    (tmp_path / "data.json").write_text('{"a":' * 100_000)
    found = contents.read(tmp_path)
    assert found.config is None
    assert found.data is None
    assert "is damaged" in found.missing["config.yaml"]
    assert "is damaged" in found.missing["data.json"]


def test_what_runs_write_is_read_back() -> None:
    plain = {"betas": [0.9, 0.999], "name": "é: [x]", "none": None, "yes": True, "tags": []}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    assert plain_yaml(text) == plain
    assert parse_yaml(text, "config.yaml") == plain


def test_a_file_that_is_read_as_a_whole_has_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["x" * 2000]))
    before = reading.limits()
    use_limits(Limits(document=1000))
    try:
        with pytest.raises(UserError, match=r"key: .*a\.json is larger than .*document_mb"):
            read_json(path, "key")
    finally:
        use_limits(before)
    assert read_json(path) == ["x" * 2000]


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "missing.json"])
def test_a_name_that_no_file_has_is_an_error_of_the_user(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path / name)


def test_a_huge_cell_is_refused(tmp_path: Path) -> None:
    columns = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID"
    path = tmp_path / "harmbench_behaviors_text_all.csv"
    path.write_text(f'{columns}\n"{"x" * 200_000}",standard,chemical,,,one\n')
    (tmp_path / "harmbench_targets_text.json").write_text('{"one": "Sure"}')
    with pytest.raises(UserError, match="is no valid CSV: field larger than"):
        harmbench(tmp_path, "all", Tally("harmbench"))
