"""The settings of each loss term; a term's mathematics is in `plot_exp/losses/<term>.py`.

`TERMS` names every known term: a new loss adds its section here, a file of defaults in
`conf/loss/` and its module.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plot_exp.config.base import Section


class TermConfig(Section):
    """What every term has."""

    weight: float = Field(1.0, ge=0)


class SFTConfig(TermConfig):
    """Likelihood of the chosen responses."""

    reduction: Literal["token", "sequence"] = "token"


class DPOConfig(TermConfig):
    """Direct preference optimisation, arXiv 2305.18290."""

    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class PLOTConfig(Section):
    """Token-level optimal transport to the preference distribution (a reconstruction).

    The paper leaves these choices open; `docs/assumptions.md` gives the reason of each default.
    """

    alpha: float = Field(1.0, ge=0)
    distribution: Literal["batch", "response", "position"] = "batch"
    side: Literal["chosen", "rejected", "both"] = "chosen"
    transform: Literal["relu", "shift", "softmax", "absolute"] = "relu"
    temperature: float = Field(1.0, gt=0)
    anchor: Literal["none", "reference"] = "none"
    anchor_gamma: float = Field(1.0, gt=0)
    embedding: Literal["input", "output"] = "input"
    normalise: bool = False
    transport: Literal["line", "path", "sliced"] = "line"
    line: Literal["principal", "principal_unweighted", "norm", "random", "token_id"] = "principal"
    directions: int = Field(64, ge=1)
    sliced_reduction: Literal["mean", "max"] = "mean"
    scale: Literal["spread", "raw"] = "spread"

    @property
    def weight(self) -> float:
        """The factor of the term in the sum; for PLOT it is the paper's α."""
        return self.alpha


TERMS: dict[str, type[Section]] = {
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "plot": PLOTConfig,
}
