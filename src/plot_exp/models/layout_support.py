"""Which layouts a model can take: what its configuration says, and what a short trial shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from plot_exp.data.collate import collate
from plot_exp.data.examples import Message, Origin, PreferenceExample
from plot_exp.data.packing import PADDED, Layout
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.models.attention import decoder_for

WINDOWED = {"sliding_attention", "chunked_attention"}
ALIBI = {"bloom", "mpt"}
# Of the largest hidden state; rounding stays far below, a token seen in error far above.
TOLERANCE, HALF_TOLERANCE = 1e-4, 5e-2


def obstacle(model: Any, longest: int) -> str | None:
    """What in the model's architecture forbids rows of several sequences; None for nothing.

    Args:
        longest: tokens of the longest prompt with its response.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    others = sorted(kinds - WINDOWED - {"full_attention"})
    if getattr(config, "is_encoder_decoder", False):
        return "is an encoder-decoder"
    if getattr(model, "_is_stateful", False) or others:
        named = f" ({', '.join(others)})" if others else ""
        return f"has layers that carry a state along the row{named}"
    if getattr(config, "alibi", False) or config.model_type in ALIBI:
        return "places tokens by where they stand in their row (ALiBi)"
    if "local" in (getattr(config, "attention_layers", None) or ()):
        return "has local layers, which count places of the row (GPT-Neo)"
    window = _window(config, kinds)
    if window is not None and longest > window:
        return f"sees {window} tokens at a time, and the longest example has {longest}"
    return None


def _window(config: Any, kinds: set[str]) -> int | None:
    """The attention window, where some layer has one."""
    if kinds and not kinds & WINDOWED:
        return None
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    found = [int(window) for window in windows if window]
    return min(found) if found else None


@torch.no_grad()
def failed_trial(model: Any, layout: Layout) -> str | None:
    """Lays two tiny examples out padded and in the layout; says how they differ, if they do."""
    training = model.training
    model.eval()
    try:
        expected, found = _states(model, PADDED), _states(model, layout)
    except Exception as error:  # foreign code may raise anything at inputs that it does not know
        lines = str(error).strip().splitlines()
        return f"refuses such rows ({type(error).__name__}: {lines[0] if lines else 'no reason'})"
    finally:
        model.train(training)
    scale = float(expected.abs().max()) or 1.0
    difference = float((found - expected).abs().max()) / scale
    half = next(model.parameters()).dtype in (torch.bfloat16, torch.float16)
    if difference <= (HALF_TOLERANCE if half else TOLERANCE):
        return None
    return (
        f"gives other hidden states in {layout.name} than in padded rows (they differ by "
        f"{difference:.1e} of the largest)"
    )


def _states(model: Any, layout: Layout) -> Tensor:
    """[N, D] what the trial's tokens are predicted from, and what they give."""
    batch = collate(_trial(), 0, replace(layout, capacity=None)).to(next(model.parameters()).device)
    hidden = decoder_for(model, batch)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    flat = hidden.reshape(-1, hidden.shape[-1]).float()
    return torch.cat([flat[batch.predict_index], flat[batch.own_index]])


def _trial() -> list[TokenisedExample]:
    """A pair and a ranking of three; ids that every vocabulary has."""
    source = PreferenceExample((Message("user", ""),), ("",), "", "", Origin("", 0))
    return [
        TokenisedExample(source, (5, 6, 7, 8, 9), ((10, 11, 12, 13), (14, 11, 5))),
        TokenisedExample(source, (7, 5, 6), ((8, 9), (13, 12, 11, 10, 9), (6, 5, 14))),
    ]
