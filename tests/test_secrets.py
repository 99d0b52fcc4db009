"""Secrets planted in the environment and in an error: a whole run leaves and says none of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.data.examples import Message
from plot_exp.generators.base import Sampling
from plot_exp.generators.endpoint import EndpointGenerator
from plot_exp.redaction import HIDDEN

from fake_server import Reply, serving

SECRETS = {
    "HF_TOKEN": "hf_" + "Zq7" * 11,
    "WANDB_API_KEY": "feedface" * 5,
    "OPENAI_API_KEY": "judges-own-words-0123456789",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCY",
    "DB_PASSWORD": "correct-horse-battery",
}
IN_URL = "staple-in-address"

# A loss that fails once with all that an exception of a client may hold.
FAILING = f"""
import os
from plot_exp.config.losses import DPOConfig
from plot_exp.losses.dpo import DPO
from plot_exp.losses.registry import register


class FailingConfig(DPOConfig):
    pass


class Failing(DPO):
    def forward(self, *args, **kwargs):
        if os.environ.get("FAIL"):
            said = " ".join(os.environ[name] for name in {list(SECRETS)!r})
            raise RuntimeError(
                f"https://ann:{IN_URL}@host/v1 with Authorization: Bearer {{said}}"
            )
        return super().forward(*args, **kwargs)


register("failing", FailingConfig, Failing)
"""


def left_in(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, secret) wherever one stands, binary files included."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "failing.py" and ".git" not in path.parts:
            data = path.read_bytes()
            for name, secret in {**SECRETS, "url": IN_URL}.items():
                if secret.encode() in data:
                    yield str(path.relative_to(folder)), name


@pytest.mark.slow
def test_a_run_with_an_error_leaves_and_says_no_secret(run_cli, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    # A token in the user's place, as some services' addresses have it.
    for words in (["init", "-q"], ["remote", "add", "origin", f"https://{IN_URL}@host/x.git"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    command = [
        "experiment=quick",
        "loss=failing",
        "logger=wandb",
        "extensions=failing.py",
        "hydra.run.dir=run",
        "trainer.progress=false",
    ]
    failed = run_cli(command, tmp_path, FAIL="1", PLOT_EXP_TRACEBACK="1", **SECRETS)
    assert failed.returncode == 1
    assert f"Authorization: Bearer {HIDDEN}" in failed.stderr
    assert HIDDEN in (tmp_path / "run" / "error.log").read_text()
    finished = run_cli(["resume=run"], tmp_path, **SECRETS)
    assert finished.returncode == 0, finished.stderr
    exported = run_cli(["task=export", "run=run", "extensions=failing.py"], tmp_path, **SECRETS)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "run" / "export" / "README.md").is_file()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert list(left_in(tmp_path)) == []
    said = "".join(one.stdout + one.stderr for one in (failed, finished, exported))
    assert [name for name, secret in SECRETS.items() if secret in said] == []
    assert IN_URL not in said
    assert "ann:" not in said


@pytest.mark.slow
def test_a_secret_on_the_command_line_ends_it_before_anything_is_written(
    run_cli, tmp_path: Path
) -> None:
    for override in (
        f"model.name=https://ann:{IN_URL}@host/model",
        f"name={SECRETS['WANDB_API_KEY']}",
        f"hydra.job.env_set.HF_TOKEN={SECRETS['HF_TOKEN']}",
    ):
        done = run_cli([override, "experiment=quick"], tmp_path, **SECRETS)
        assert done.returncode == 2
        assert "environment" in done.stderr
        assert IN_URL not in done.stderr
        assert not any(secret in done.stderr for secret in SECRETS.values())
    assert list(tmp_path.iterdir()) == []


def test_what_a_server_says_of_a_key_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "an-ordinary-variable-holds-this"
    monkeypatch.setenv("MY_JUDGE", key)

    def answer(*_: object) -> Reply:
        deep = "[" * 100_000
        return Reply(f'{{"key": "{key}", "x": {deep}', headers={"X-Key": key})

    settings = {"model": "m", "key_variable": "MY_JUDGE", "retries": 0, "timeout": 5}
    with serving(answer) as server:
        generator = EndpointGenerator(EndpointConfig(url=server.url, **settings), tmp_path)
        with pytest.raises(Exception, match="not whole JSON") as raised:
            generator([(Message("user", "hello"),)], Sampling())
    assert key not in str(raised.value)
    assert json.dumps(server.seen[0].headers).count(key) == 1
    assert list(left_in(tmp_path)) == []
    assert not any(key.encode() in file.read_bytes() for file in tmp_path.rglob("*.json"))
