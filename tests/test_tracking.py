"""What a run logs survives kills, resumes, full disks and a W&B that fails at every turn."""

from __future__ import annotations

import csv
import json
import logging
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plot_exp.config.losses import DPOConfig, PLOTConfig
from plot_exp.config.schema import Config
from plot_exp.errors import RunError
from plot_exp.tracking import Tracker
from plot_exp.tracking.csv_log import CsvLog
from plot_exp.tracking.wandb_log import choose_mode

KEY = "0123456789abcdef0123456789abcdef01234567"


def config(**logger: Any) -> Config:
    terms = {"dpo": DPOConfig(), "plot": PLOTConfig(alpha=0.25)}
    return Config.model_validate(
        {"name": "a run", "loss": terms, "cache_dir": "cache", "logger": logger}
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))


class TestMetricsFile:
    def test_validation_stands_in_the_row_of_its_step(self, tmp_path: Path) -> None:
        log = CsvLog(tmp_path / "metrics.csv")
        log.log({"train/loss": 0.5}, 10)
        log.log({"val/reward_accuracy": 0.75}, 10)
        log.log({"train/loss": 0.25}, 20)
        assert rows(log.path) == [
            {"step": "10", "train/loss": "0.5", "val/reward_accuracy": "0.75"},
            {"step": "20", "train/loss": "0.25", "val/reward_accuracy": ""},
        ]

    def test_every_line_is_on_disk_before_log_returns(self, tmp_path: Path) -> None:
        log = CsvLog(tmp_path / "metrics.csv")
        for step in range(1, 5):
            log.log({"train/loss": 1 / step}, step)
            assert float(rows(log.path)[-1]["train/loss"]) == 1 / step

    def test_numbers_keep_all_digits_and_say_what_is_not_finite(self, tmp_path: Path) -> None:
        log = CsvLog(tmp_path / "metrics.csv")
        log.log({"third": 1 / 3, "bad": math.nan, "far": -math.inf, "count": 3}, 1)
        (row,) = rows(log.path)
        assert float(row["third"]) == 1 / 3
        assert (row["bad"], row["far"], row["count"]) == ("nan", "-inf", "3")

    def test_resume_goes_on_as_if_never_killed(self, tmp_path: Path) -> None:
        whole, killed = CsvLog(tmp_path / "whole.csv"), CsvLog(tmp_path / "killed.csv")
        for step in range(1, 9):
            whole.log({"a,b": step / 7, "loss": step / 3}, step)
        for step in range(1, 7):
            killed.log({"a,b": step / 7, "loss": step / 3}, step)
        with killed.path.open("a") as file:
            file.write("7,1.0")
        resumed = CsvLog(killed.path, resume_step=4)
        for step in range(5, 9):
            resumed.log({"a,b": step / 7, "loss": step / 3}, step)
        assert killed.path.read_bytes() == whole.path.read_bytes()

    @pytest.mark.parametrize("cut", range(0, 60, 3))
    def test_a_file_cut_anywhere_can_be_gone_on_with(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "metrics.csv"
        log = CsvLog(path)
        for step in (1, 2, 3, 4):
            log.log({"loss": step / 3}, step)
        text = path.read_text()
        path.write_text(text[:cut])
        CsvLog(path, resume_step=2).log({"loss": 9.0}, 3)
        kept = rows(path)
        whole_lines = text[:cut].count("\n") - 1
        assert [row["step"] for row in kept] == [*["1", "2"][: max(whole_lines, 0)], "3"]
        assert all(row["loss"] in (repr(1 / 3), repr(2 / 3), "9.0") for row in kept)

    def test_a_new_run_does_not_go_on_with_an_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.csv"
        CsvLog(path).log({"old": 1.0}, 1)
        CsvLog(path).log({"new": 2.0}, 1)
        assert rows(path) == [{"step": "1", "new": "2.0"}]

    def test_a_disk_that_cannot_be_written_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file where the folder should be")
        with pytest.raises(RunError, match=r"metrics\.csv could not be written"):
            CsvLog(tmp_path / "run" / "metrics.csv", resume_step=0).log({"loss": 1.0}, 1)


class Failing:
    """A W&B that works until the call named `at`, which raises."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.calls: list[str] = []
        self.modes: list[str] = []
        self.run: Any = None
        self.summary = SimpleNamespace(update=self._call("summary"))
        for name in ("log", "log_artifact", "finish", "define_metric"):
            setattr(self, name, self._call(name))
        for name in ("Settings", "Table", "Image", "teardown"):
            setattr(self, name, self._call(name))

    def _call(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if name == self.at:
                raise ConnectionError(f"{name} is out of order")
            return SimpleNamespace()

        return call

    def Artifact(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        return SimpleNamespace(add_file=self._call("add_file"), add_dir=self._call("add_dir"))

    def init(self, **kwargs: Any) -> Any:
        self.modes.append(kwargs["mode"])
        self.kwargs = kwargs
        if self.at == "init" or (self.at == "online" and kwargs["mode"] == "online"):
            raise TimeoutError("no answer")
        return self


POINTS = (
    "none",
    "init",
    "online",
    "Settings",
    "define_metric",
    "log",
    "Table",
    "Image",
    "add_file",
    "log_artifact",
    "summary",
    "finish",
)


def run_through(tracker: Tracker, folder: Path) -> None:
    file = folder / "data.json"
    file.write_text("{}")
    tracker.log({"train/loss": 0.5}, 1)
    tracker.table("samples", ["prompt"], [["hello"]], 1)
    tracker.image("plot", file)
    tracker.artifact("data", "dataset", file)
    tracker.summary({"val/reward_accuracy": 0.8})
    tracker.log({"train/loss": 0.25}, 2)
    tracker.close(0)


@pytest.mark.parametrize("at", POINTS)
def test_wandb_never_fails_a_run(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Failing(at))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run_through(Tracker(tmp_path, config(), resume_step=None), tmp_path)
    assert [row["train/loss"] for row in rows(tmp_path / "metrics.csv")] == ["0.5", "0.25"]
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (0 if at == "none" else 1)


def test_wandb_that_cannot_be_imported_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run_through(Tracker(tmp_path, config(), resume_step=None), tmp_path)
    assert len(rows(tmp_path / "metrics.csv")) == 2
    assert "W&B is off" in caplog.text


def test_unreachable_wandb_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Failing("online")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run_through(Tracker(tmp_path, config(), resume_step=None), tmp_path)
    assert fake.modes == ["online", "offline"]
    assert fake.calls.count("log") == 4


@pytest.mark.parametrize("name", ["csv", "none"])
def test_wandb_is_not_imported_unless_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Failing("none")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run_through(Tracker(tmp_path, config(name=name), resume_step=None), tmp_path)
    assert fake.calls == []
    assert fake.modes == []
    assert (tmp_path / "metrics.csv").exists()


def test_a_resumed_run_is_the_same_wandb_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Failing("none")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    Tracker(tmp_path, config(), resume_step=None).close(1)
    first = fake.kwargs
    Tracker(tmp_path, config(), resume_step=4).close(0)
    assert fake.kwargs["id"] == first["id"]
    assert fake.kwargs["resume"] == "allow"
    other = tmp_path / "other"
    other.mkdir()
    Tracker(other, config(), resume_step=None).close(0)
    assert fake.kwargs["id"] != first["id"]


def test_mode_follows_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose_mode("auto") == "offline"
    assert choose_mode("online") == "offline"
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert choose_mode("auto") == "online"
    assert choose_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode("auto") == "disabled"


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: protobuf in the blocks of a LevelDB log."""
    from wandb.proto import wandb_internal_pb2

    raw, position, buffer = path.read_bytes(), 7, b""
    while position + 7 <= len(raw):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", raw[position : position + 7])
        buffer += raw[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(buffer)
            buffer = b""
            yield record


@pytest.mark.slow
def test_an_offline_run_holds_config_metrics_and_artifacts_but_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "p"}\n')
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    wanted = config(mode="offline")
    tracker = Tracker(run_dir, wanted, resume_step=None)
    assert "offline-run-" in (tracker.where or "")
    tracker.log({"train/loss": 0.5, "train/lr": 1e-4}, 10)
    tracker.table("samples", ["prompt", "after"], [["hello", None], [None, "there"]], 10)
    tracker.artifact("demo data", "dataset", data)
    tracker.artifact("policy", "model", data, upload=False)
    tracker.summary({"val/reward_accuracy": 0.8125})
    tracker.close(0)

    (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    logged = {
        update.key: json.loads(update.value_json)
        for record in records
        if record.WhichOneof("record_type") == "run"
        for update in record.run.config.update
    }
    assert {key: value for key, value in logged.items() if key != "_wandb"} == wanted.plain()
    history = [
        {
            item.nested_key[0] if item.nested_key else item.key: item.value_json
            for item in r.history.item
        }
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    assert (history[0]["train/loss"], history[0]["step"]) == ("0.5", "10")
    summary = {u.key: u.value_json for r in records for u in r.summary.update if u.key}
    assert summary["val/reward_accuracy"] == "0.8125"
    kinds = {r.artifact.type for r in records if r.WhichOneof("record_type") == "artifact"}
    assert {"dataset", "model"} <= kinds
    for written in tmp_path.rglob("*"):
        assert not written.is_file() or KEY.encode() not in written.read_bytes()
