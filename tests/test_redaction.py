"""What is hidden, and what must not be taken for a secret."""

from __future__ import annotations

import pytest

from plot_exp.redaction import HIDDEN, holds_secret, redact, remember

HF = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ann:pass%20word@host/a", f"https://{HIDDEN}@host/a"),
        (f"at https://{HF}@hub/x?y=1", f"at https://{HIDDEN}@hub/x?y=1"),
        ("Authorization: Bearer abcdefgh1234", f"Authorization: Bearer {HIDDEN}"),
        (f"{{'token': '{HF}'}}", f"{{'token': '{HIDDEN}'}}"),
        ("GET /v1?api_key=0123456789abc&x=1", f"GET /v1?api_key={HIDDEN}&x=1"),
        ("OPENAI_API_KEY=abcdefghij", f"OPENAI_API_KEY={HIDDEN}"),
        ("password: correcthorse", f"password: {HIDDEN}"),
        ("sk-proj-0123456789abcdefXYZ", HIDDEN),
    ],
)
def test_secrets_are_hidden(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert not holds_secret(redact(text))


@pytest.mark.parametrize(
    "text",
    [
        "eval.endpoint.key_variable=OPENAI_API_KEY",
        "eval.endpoint.limit_key=max_completion_tokens",
        "eos_token=<|end_of_text|> pad_token=<|endoftext|>",
        "train/tokens_per_second=12345678.9",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "http://localhost:8000/v1 someone@example.org",
        "task-specific-prompt-templates-are-kept",
        "loss=dpo+plot key=VALUE token=[a,b]",
        "model.name=/home/ann/models/hf_export_of_the_day",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:proxy-pass-word@proxy:3128")
    monkeypatch.setenv("SSH_PRIVATE_KEY", "/home/ann/.ssh/id_ed25519")
    monkeypatch.setenv("MONKEY", "banana-split")
    shown = redact(
        "0123456789abcdef0123456789abcdef01234567 proxy-pass-word banana-split /home/ann"
    )
    assert shown == f"{HIDDEN} {HIDDEN} banana-split /home/ann"
    assert redact("/home/ann/.ssh/id_ed25519") == "/home/ann/.ssh/id_ed25519"
    assert redact("a judge's own word") == "a judge's own word"
    remember("a judge's own word")
    assert redact("a judge's own word") == HIDDEN
