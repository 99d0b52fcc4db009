"""W&B is a guest that may fail at every turn without the run noticing."""

from __future__ import annotations

import csv
import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plot_exp.config.losses import DPOConfig, PLOTConfig
from plot_exp.config.schema import Config
from plot_exp.tracking import Tracker
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


class Failing:
    """A W&B that works until the call named `at`, which raises."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.calls: list[str] = []
        self.modes: list[str] = []
        self.held: set[str] = set()
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
        online = kwargs["mode"] == "online"
        if self.at == "init" or (self.at in ("online", "in use") and online):
            self.held.add(kwargs["id"])
            raise TimeoutError("no answer")
        if self.at == "in use" and kwargs["id"] in self.held:
            raise RuntimeError("this id is in use")
        return self


POINTS = (
    "none",
    "init",
    "online",
    "in use",
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


@pytest.mark.parametrize(("at", "modes"), [("online", 1), ("in use", 2)])
def test_unreachable_wandb_is_logged_offline(
    at: str, modes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Failing(at)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run_through(Tracker(tmp_path, config(), resume_step=None), tmp_path)
    assert fake.modes == ["online", *["offline"] * modes]
    assert (tmp_path / "wandb_id.txt").read_text().strip() == fake.kwargs["id"]
    assert fake.calls.count("log") == 4


def test_a_run_that_loses_wandb_goes_on_offline_from_its_first_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The table fails: the step before it is logged again, and what comes after it too."""
    fake = Failing("Table")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    kept = tmp_path / "wandb" / "offline-run-1-abc" / "run-abc.wandb"
    kept.parent.mkdir(parents=True)
    kept.touch()
    run_through(Tracker(tmp_path, config(), resume_step=None), tmp_path)
    assert fake.modes == ["online", "offline"]
    # Step 1, step 1 again, the picture, step 2.
    assert fake.calls.count("log") == 4
    assert "goes on offline" in caplog.text
    assert f"send what is kept with: wandb sync {kept.parent}" in capsys.readouterr().out


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
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example:8443")
    assert choose_mode("auto") == "offline"
    netrc.write_text(f"machine wandb.example:8443\n  login user\n  password {KEY}\n")
    assert choose_mode("auto") == "online"
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
    # W&B writes the settings into the run's record, or into one of their own.
    configs = [
        record.run.config if record.WhichOneof("record_type") == "run" else record.config
        for record in records
        if record.WhichOneof("record_type") in ("run", "config")
    ]
    logged = {
        update.key: json.loads(update.value_json)
        for config_record in configs
        for update in config_record.update
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


KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from plot_exp.config.losses import DPOConfig
from plot_exp.config.schema import Config
from plot_exp.tracking import Tracker
config = Config.model_validate(
    {"loss": {"dpo": DPOConfig()}, "cache_dir": "cache", "logger": {"mode": "offline"}}
)
tracker = Tracker(Path(sys.argv[1]), config, resume_step=None)
for step in range(1, 5):
    tracker.log({"train/loss": 1 / step}, step)
listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True)
for row in listed.stdout.splitlines():
    number, parent, arguments = row.split(maxsplit=2)
    if int(parent) == os.getpid() and "wandb" in arguments:
        os.kill(int(number), signal.SIGKILL)
        print("killed")
for step in range(5, 200):
    tracker.log({"train/loss": 1 / step}, step)
tracker.summary({"val/loss": 0.5})
tracker.close(0)
"""


@pytest.mark.slow
def test_a_service_that_is_killed_costs_nothing_but_a_sentence(tmp_path: Path) -> None:
    """The run goes on, and what can be sent later holds every step from the first one on."""
    pytest.importorskip("wandb")
    environment = {**os.environ, "WANDB_API_KEY": KEY}
    environment.pop("WANDB_SERVICE", None)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert "killed" in done.stdout
    assert done.stderr.count("W&B is lost, and this run goes on offline") == 1
    assert "Traceback" not in done.stderr
    assert len(rows(tmp_path / "metrics.csv")) == 199
    (said,) = [line for line in done.stdout.splitlines() if "W&B was lost" in line]
    (file,) = Path(said.partition("wandb sync ")[2]).glob("run-*.wandb")
    steps = [
        int(item.value_json)
        for record in wandb_records(file)
        if record.WhichOneof("record_type") == "history"
        for item in record.history.item
        if "step" in (item.key, *item.nested_key)
    ]
    assert steps == list(range(1, 200))


UNREACHABLE = """
import sys
from pathlib import Path
from plot_exp.config.losses import DPOConfig
from plot_exp.config.schema import Config
from plot_exp.tracking import Tracker, wandb_log
wandb_log.INIT_SECONDS = 3
config = Config.model_validate({"loss": {"dpo": DPOConfig()}, "cache_dir": "cache"})
tracker = Tracker(Path(sys.argv[1]), config, resume_step=None)
tracker.log({"train/loss": 0.5}, 1)
print(tracker.where)
tracker.close(0)
"""


@pytest.mark.slow
def test_a_server_that_does_not_answer_leaves_an_offline_run(tmp_path: Path) -> None:
    """In a process of its own, because W&B reads its environment once."""
    pytest.importorskip("wandb")
    environment = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    environment.pop("WANDB_SERVICE", None)
    arguments = [sys.executable, "-c", UNREACHABLE, str(tmp_path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "offline-run-" in done.stdout
    assert done.stderr.count("cannot be reached") == 1
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    kinds = {record.WhichOneof("record_type") for record in wandb_records(file)}
    assert {"run", "history", "exit"} <= kinds
    for written in tmp_path.rglob("*"):
        assert not written.is_file() or KEY.encode() not in written.read_bytes()
