"""The summary counts what is there."""

from __future__ import annotations

from plot_exp.models.policy import Policy
from plot_exp.models.summary import model_summary

from scoring_models import VOCABULARY, tiny_model


def test_parts_and_whole_by_hand() -> None:
    """Tied Qwen2: the embedding 61·16 counts once in the whole, and in its part."""
    policy = Policy(tiny_model("qwen2"))
    policy.model.model.embed_tokens.requires_grad_(False)

    summary = model_summary(policy, "here")

    parts = {part["part"]: part for part in summary["parts"]}
    embedding = VOCABULARY * 16
    assert parts["model.embed_tokens"]["parameters"] == embedding
    assert summary["parameters"] == sum(p.numel() for p in policy.parameters())
    assert summary["trainable"] == summary["parameters"] - embedding
    inner = [parts[name]["parameters"] for name in parts if name.startswith("model.")]
    assert sum(inner) == summary["parameters"]
    assert (summary["architecture"], summary["vocab_size"]) == ("Qwen2ForCausalLM", VOCABULARY)
