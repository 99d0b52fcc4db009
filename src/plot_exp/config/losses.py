"""The settings of each loss term; a term's mathematics is in `plot_exp/losses/<term>.py`.

`TERMS` names every known term: a new loss adds its section here, a file of defaults in
`conf/loss/` and its module.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, create_model

from plot_exp.config.base import Section
from plot_exp.config.nearest import known
from plot_exp.config.relatives import (
    CPOConfig,
    DPOPConfig,
    EMOConfig,
    IPOConfig,
    KTOConfig,
    ORPOConfig,
    OTPOConfig,
    SimPOConfig,
    TDPOConfig,
)
from plot_exp.config.terms import Schedule, Term, TermConfig
from plot_exp.errors import UserError


class SFTConfig(TermConfig):
    """Likelihood of the chosen responses."""

    reduction: Literal["token", "sequence"] = "token"


class DPOConfig(TermConfig):
    """Direct preference optimisation, arXiv 2305.18290."""

    needs_pairs: ClassVar[bool] = True

    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class DominanceConfig(TermConfig):
    """What both forms of alignment by optimal transport share, arXiv 2406.05882."""

    beta: float = Field(0.01, gt=0)
    relaxation: Literal["logistic", "squared_hinge", "least_squares"] = "logistic"


class AOTConfig(DominanceConfig):
    """Dominance of the policy's margins over the reference's."""

    needs_pairs: ClassVar[bool] = True


class AOTUnpairedConfig(DominanceConfig):
    """Dominance of the chosen responses' log-ratios over the rejected ones'."""

    needs_rejected: ClassVar[bool] = True


class PROConfig(TermConfig):
    """Preference ranking optimisation, arXiv 2306.17492.

    Attributes:
        sft_weight: w of the likelihood term w·(K−1)²·(−s(y_0)).
        scores: whether scores of the responses, where there are any, set the temperatures.
    """

    needs_pairs: ClassVar[bool] = True

    sft_weight: float = Field(0.05, ge=0)
    scores: bool = True


class ShareConfig(Term):
    """Settings of a term that is added to another one.

    Attributes:
        gradient_share: sets the term's factor so that its gradient has this share of the norm of
            the first other term's; null leaves the factor as it is given.
        gradient_share_every: steps between two measurements of the norms.
        schedule: how the term's factor goes over the run: as it is, or linearly up to it or down
            from it.
    """

    auxiliary: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True

    gradient_share: float | None = Field(None, gt=0)
    gradient_share_every: int = Field(10, ge=1)
    schedule: Schedule = "constant"


class DistributionConfig(ShareConfig):
    """A term between the model's token distribution and the preference distribution.

    The source (arXiv 2604.01837) leaves these choices open; `docs/assumptions.md` gives the
    reason of each default.
    """

    distribution: Literal["batch", "response", "position"] = "batch"
    side: Literal["chosen", "rejected", "both"] = "chosen"
    transform: Literal["relu", "shift", "softmax", "absolute"] = "relu"
    temperature: float = Field(1.0, gt=0)
    smoothing: float = Field(0.0, ge=0)
    significance: float = Field(0.0, ge=0)
    anchor: Literal["none", "reference"] = "none"
    anchor_gamma: float = Field(1.0, gt=0)


class PLOTConfig(DistributionConfig):
    """Token-level optimal transport to the preference distribution (a reconstruction).

    Attributes:
        transport: along a line, a path or slices; or in the full cost of the embeddings, by
            carried potentials (dual), entropic (sinkhorn) or exact.
        cost_transforms: of the embeddings, for the full cost.
        cost_shape: how the distance is bent, with `cost_parameter`, for the full cost.
        cost_norm: l of the distance, for the full cost.
        cost_distance: straight, or along the graph of each token's `cost_neighbours` nearest ones.
        epsilon: weight of the entropy: of sinkhorn in units of the cost, of dual relative to the
            potentials' deviation within the sides; null takes the solver's own.
        limit: tokens on each side of the full cost.
        iterations: scalings a step of carried potentials.
        debiased: subtract the self terms of entropic transport.
    """

    alpha: float = Field(1.0, ge=0)
    embedding: Literal["input", "output", "contextual"] = "input"
    normalise: bool = False
    transport: Literal["line", "path", "sliced", "dual", "sinkhorn", "exact"] = "line"
    line: Literal["principal", "principal_unweighted", "norm", "random", "token_id"] = "principal"
    directions: int = Field(64, ge=1)
    sliced_reduction: Literal["mean", "max"] = "mean"
    scale: Literal["spread", "raw"] = "spread"
    cost_transforms: list[Literal["centred", "normalised", "whitened"]] = Field(
        default_factory=list
    )
    cost_shape: Literal["linear", "power", "saturating"] = "linear"
    cost_parameter: float = Field(1.0, gt=0)
    cost_norm: float = Field(2.0, ge=1)
    cost_distance: Literal["straight", "geodesic"] = "straight"
    cost_neighbours: int = Field(10, ge=1)
    epsilon: float | None = Field(None, gt=0)
    limit: int = Field(2048, ge=1)
    iterations: int = Field(24, ge=1)
    debiased: bool = False

    @property
    def weight(self) -> float:
        """The factor of the term in the sum; for PLOT it is the paper's α."""
        return self.alpha


class DivergenceConfig(DistributionConfig):
    """A divergence in the place of PLOT's transport."""

    weight: float = Field(1.0, ge=0)


class KLConfig(DivergenceConfig):
    """Kullback-Leibler divergence: `forward` KL(target ‖ model), `reverse` KL(model ‖ target)."""

    direction: Literal["forward", "reverse"] = "forward"


class JSConfig(DivergenceConfig):
    """Jensen-Shannon divergence."""


class MSEConfig(DivergenceConfig):
    """Squared error, its mean or its sum over the vocabulary."""

    reduction: Literal["mean", "sum"] = "mean"


class ULDConfig(DivergenceConfig):
    """Difference of the sorted probabilities, arXiv 2402.12030."""


class DEFTConfig(ShareConfig):
    """The distribution reward of DEFT and its data filter, arXiv 2604.01787.

    Attributes:
        weight: the paper's ω.
        floor: mean log-probability below which a disfavoured token is not pushed further.
        filter: share of the training examples that are kept; 1 keeps all.
        filter_keeps: those of the lowest or of the highest reward.
    """

    weight: float = Field(1.0, ge=0)
    side: Literal["chosen", "rejected", "both"] = "chosen"
    smoothing: float = Field(0.0, ge=0)
    significance: float = Field(0.0, ge=0)
    floor: float = Field(-20.0, lt=0)
    filter: float = Field(1.0, gt=0, le=1)
    filter_keeps: Literal["lowest", "highest"] = "lowest"


TERMS: dict[str, type[Term]] = {
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "aot": AOTConfig,
    "aot_unpaired": AOTUnpairedConfig,
    "pro": PROConfig,
    "ipo": IPOConfig,
    "simpo": SimPOConfig,
    "cpo": CPOConfig,
    "orpo": ORPOConfig,
    "dpop": DPOPConfig,
    "kto": KTOConfig,
    "tdpo": TDPOConfig,
    "otpo": OTPOConfig,
    "emo": EMOConfig,
    "plot": PLOTConfig,
    "deft": DEFTConfig,
    "kl": KLConfig,
    "js": JSConfig,
    "mse": MSEConfig,
    "uld": ULDConfig,
}


def load_extension(path: str) -> str:
    """Loads a file that registers terms, and returns its whole path.

    Raises:
        UserError: see `plot_exp.losses.registry.load_extension`.
    """
    whole = Path(path).expanduser().absolute()
    # Terms bring torch, which is not needed to compose what this package knows.
    importlib.import_module("plot_exp.losses.registry").load_extension(whole)
    return str(whole)


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
