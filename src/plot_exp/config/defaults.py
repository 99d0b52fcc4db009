"""What the keys of a configuration are worth that was written before they existed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from plot_exp.config.losses import TERMS
from plot_exp.config.schema import Config


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings with the defaults of keys that they lack; nothing is checked."""
    whole = _completed(settings, Config)
    terms = whole.get("loss")
    if isinstance(terms, Mapping):
        whole["loss"] = {
            name: _completed(own, TERMS[name])
            if name in TERMS and isinstance(own, Mapping)
            else own
            for name, own in terms.items()
        }
    return whole


def _completed(settings: Mapping[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    whole = dict(settings)
    for key, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            own = whole.get(key, {})
            whole[key] = _completed(own, type(default)) if isinstance(own, Mapping) else own
        elif key not in whole and not field.is_required():
            whole[key] = default
    return whole
