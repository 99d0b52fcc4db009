"""Rows from the hub read like rows of files, and no network is one clear sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import hub, sources
from plot_exp.errors import UserError

CALLS: list[tuple[str, str | None, str | None]] = []


def serve(monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[dict[str, Any]]]) -> None:
    def load_dataset(name: str, config: str | None, data_dir: str | None = None) -> Any:
        CALLS.append((name, config, data_dir))
        return splits

    CALLS.clear()
    monkeypatch.delenv("PLOT_EXP_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_gsm8k_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": f"1+{n}\n#### {n + 1}"} for n in range(5)]
    serve(monkeypatch, {"train": rows, "test": [{"question": "t?", "answer": "a\n#### 1"}]})
    split = sources.read(DatasetConfig(name="gsm8k"), [], cache_dir=tmp_path)
    assert CALLS == [("openai/gsm8k", "main", None)]
    assert (len(split.train), len(split.validation)) == (5, 1)
    assert str(split.train[3].origin) == "openai/gsm8k/main:train, row 3"


def test_hh_rlhf_from_the_hub_asks_for_each_subset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pair = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
    serve(monkeypatch, {"train": [pair], "test": [pair]})
    split = sources.read(DatasetConfig(name="hh_rlhf"), [], cache_dir=tmp_path)
    assert [folder for _, _, folder in CALLS] == [
        "harmless-base",
        "helpful-base",
        "helpful-online",
        "helpful-rejection-sampled",
    ]
    assert [example.category for example in split.train] == [folder for _, _, folder in CALLS]


def test_math_from_the_hub_asks_for_each_subject_or_for_math_500(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = {"problem": "p", "solution": r"\boxed{1}", "type": "Algebra"}
    serve(monkeypatch, {"train": [row], "test": [row]})
    sources.read(DatasetConfig(name="math"), [], cache_dir=tmp_path)
    assert len(CALLS) == 7
    assert CALLS[0] == ("EleutherAI/hendrycks_math", "algebra", None)
    serve(monkeypatch, {"test": [row | {"problem": f"p{n}"} for n in range(10)]})
    config = DatasetConfig(name="math", hub_name="HuggingFaceH4/MATH-500")
    split = sources.read(config, [], cache_dir=tmp_path)
    assert CALLS == [("HuggingFaceH4/MATH-500", None, None)]
    assert (len(split.train), len(split.validation)) == (9, 1)


def test_no_network_says_what_to_pass_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\nlong trace")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fail))
    with pytest.raises(UserError, match=r"ConnectionError: Couldn't.*\); pass dataset\.path="):
        hub.load("openai/gsm8k", config="main")


def test_unknown_splits_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {"challenge": []})
    with pytest.raises(UserError, match="has the splits challenge; expected train"):
        hub.load("x/y")


def test_readers_of_local_files_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from plot_exp.config.dataset import DatasetConfig\n"
        "from plot_exp.data import sources\n"
        "for name in ('hh_rlhf', 'gsm8k', 'math', 'jsonl', 'mix'):\n"
        "    try: sources.check(DatasetConfig(name=name, path='/nope'))\n"
        "    except Exception as error: assert type(error).__name__ == 'UserError', error\n"
        "    else: raise SystemExit(name)\n"
        "heavy = {'torch', 'lightning', 'datasets', 'transformers', 'sympy', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
