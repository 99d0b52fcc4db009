"""The settings of each loss term; a term's mathematics is in `plot_exp/losses/<term>.py`.

`TERMS` names every known term: a new loss adds its section here, a file of defaults in
`conf/loss/` and its module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, create_model

from plot_exp.config.base import Section
from plot_exp.config.nearest import known
from plot_exp.errors import UserError


class Term(Section):
    """What is known of a term before any tensor exists.

    Attributes:
        needs_pairs: the term compares responses, so every example must have a rejected one.
    """

    needs_pairs: ClassVar[bool] = False


class TermConfig(Term):
    """A term whose factor in the sum is called `weight`."""

    weight: float = Field(1.0, ge=0)


class SFTConfig(TermConfig):
    """Likelihood of the chosen responses."""

    reduction: Literal["token", "sequence"] = "token"


class DPOConfig(TermConfig):
    """Direct preference optimisation, arXiv 2305.18290."""

    needs_pairs: ClassVar[bool] = True

    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class PLOTConfig(Term):
    """Token-level optimal transport to the preference distribution (a reconstruction).

    The paper leaves these choices open; `docs/assumptions.md` gives the reason of each default.
    """

    needs_pairs: ClassVar[bool] = True

    alpha: float = Field(1.0, ge=0)
    distribution: Literal["batch", "response", "position"] = "batch"
    side: Literal["chosen", "rejected", "both"] = "chosen"
    transform: Literal["relu", "shift", "softmax", "absolute"] = "relu"
    temperature: float = Field(1.0, gt=0)
    smoothing: float = Field(0.0, ge=0)
    significance: float = Field(0.0, ge=0)
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


TERMS: dict[str, type[Term]] = {
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "plot": PLOTConfig,
}


def parse_terms(text: str) -> list[str]:
    """The terms of `dpo+plot`, in the order they were written.

    Raises:
        UserError: an unknown term, one named twice, or an empty part.
    """
    terms = [part.strip() for part in text.split("+")]
    for term in terms:
        if not term:
            raise UserError(
                f"loss={text}: a term is missing beside a '+'; write for instance dpo+plot"
            )
        if term not in TERMS:
            raise UserError(f"loss={text}: unknown term {term!r}; {known(term, TERMS)}")
        if terms.count(term) > 1:
            raise UserError(f"loss={text}: {term!r} stands twice; loss.{term}.* sets its weight")
    return terms


def term_sections(value: object) -> dict[str, Section]:
    """Each term's own validated section, for `Config.loss`.

    Raises:
        ValueError: there is no term, or an unknown one.
        ValidationError: a term's setting is wrong.
    """
    if not isinstance(value, Mapping) or not value:
        raise ValueError("needs at least one term: loss=dpo+plot")
    for term in value:
        if term not in TERMS:
            raise ValueError(f"has an unknown term {term!r}; {known(str(term), TERMS)}")
    fields: dict[str, Any] = {term: (TERMS[term], ...) for term in value}
    return dict(create_model("Loss", __base__=Section, **fields).model_validate(value))
