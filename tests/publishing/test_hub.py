"""Pushing with the hub's own client against a hub on this machine; its refusals in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from plot_exp.errors import RunError, UserError
from plot_exp.publishing.hub import Hub

from fake_hub import FakeHub, serving_hub

TOKEN = "hf_" + "aB3" * 11


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with serving_hub(TOKEN) as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    (tmp_path / "model" / "README.md").write_text("---\ntags: [x]\n---\n# A card\n")
    return tmp_path / "model"


def test_a_folder_is_pushed_as_it_is_and_private_by_default(hub, folder) -> None:
    url = Hub("ann/policy").push(folder, private=True)
    assert url == f"{hub.url}/ann/policy"
    assert hub.repositories == {"ann/policy": True}
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    Hub("ann/open").push(folder, private=False)
    assert hub.repositories["ann/open"] is False


def test_a_repository_that_others_read_is_not_written_by_default(hub, folder) -> None:
    hub.repositories["ann/policy"] = False
    with pytest.raises(UserError, match=r"everybody can read it.*export.private=false"):
        Hub("ann/policy").push(folder, private=True)
    assert hub.files == {}
    Hub("ann/policy").push(folder, private=False)
    assert hub.files


def test_no_token_a_wrong_one_and_no_network(hub, folder, monkeypatch) -> None:
    hub.token = "hf_" + "another" * 5
    with pytest.raises(UserError, match=r"the token is not valid \(HTTP 401\)") as raised:
        Hub("ann/policy")
    assert TOKEN not in str(raised.value)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the hub cannot be reached"):
        Hub("ann/policy")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"needs a token.*HF_TOKEN"):
        Hub("ann/policy")


@pytest.mark.parametrize(
    ("part", "status", "error", "message"),
    [
        ("/repos/create", 403, UserError, r"may not write there.*\(HTTP 403\)"),
        ("/repos/create", 404, UserError, "no such owner"),
        ("/commit/", 403, RunError, r"may not write there.*The model is in .*model"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_token(
    hub, folder, part, status, error, message
) -> None:
    opened = Hub("ann/policy")
    hub.status[part] = status
    with pytest.raises(error, match=message) as raised:
        opened.push(folder, private=True)
    assert TOKEN not in str(raised.value)
    assert raised.value.__cause__ is None or TOKEN not in str(raised.value.__cause__)
    assert (folder / "config.json").exists()
