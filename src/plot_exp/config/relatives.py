"""The settings of DPO's relatives; each one's mathematics is in `plot_exp/losses/<term>.py`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from plot_exp.config.terms import TermConfig


class IPOConfig(TermConfig):
    """Identity preference optimisation, arXiv 2310.12036.

    Attributes:
        beta: the paper's τ.
        reduction: log-ratios as token sums (the paper) or token means (TRL's `ipo`).
    """

    needs_pairs: ClassVar[bool] = True

    beta: float = Field(0.1, gt=0)
    reduction: Literal["sum", "mean"] = "sum"


class SimPOConfig(TermConfig):
    """Simple preference optimisation, arXiv 2405.14734: no reference, a margin of γ."""

    needs_pairs: ClassVar[bool] = True

    beta: float = Field(2.5, gt=0)
    gamma: float = Field(1.375, ge=0)


class LikelihoodConfig(TermConfig):
    """A term on pairs that holds the likelihood of the chosen responses too.

    Attributes:
        reduction: of the likelihood, as for `sft`.
    """

    needs_pairs: ClassVar[bool] = True
    likelihood: ClassVar[bool] = True

    reduction: Literal["token", "sequence"] = "token"


class CPOConfig(LikelihoodConfig):
    """Contrastive preference optimisation, arXiv 2401.08417.

    Attributes:
        sft_weight: of the likelihood.
    """

    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    sft_weight: float = Field(1.0, ge=0)


class ORPOConfig(LikelihoodConfig):
    """Odds-ratio preference optimisation, arXiv 2403.07691.

    Attributes:
        odds_weight: the paper's λ.
    """

    odds_weight: float = Field(0.1, ge=0)


class KTOConfig(TermConfig):
    """Kahneman-Tversky optimisation, arXiv 2402.01306: labelled responses, no pairs needed."""

    needs_rejected: ClassVar[bool] = True
    asks_of_reference: ClassVar[str] = "scores of prompts with responses to other prompts"

    beta: float = Field(0.1, gt=0)
    desirable_weight: float = Field(1.0, ge=0)
    undesirable_weight: float = Field(1.0, ge=0)


class DPOPConfig(TermConfig):
    """DPO-Positive, arXiv 2402.13228.

    Attributes:
        penalty: the paper's λ, on a chosen response less likely than under the reference.
    """

    needs_pairs: ClassVar[bool] = True

    beta: float = Field(0.1, gt=0)
    penalty: float = Field(50.0, ge=0)


class TDPOConfig(TermConfig):
    """Token-level DPO, arXiv 2404.11999.

    Attributes:
        variant: 1 is a = 1 with a gradient through the chosen response's divergence, 2 stops it.
        a: weight of the divergences' difference in variant 2.
    """

    needs_pairs: ClassVar[bool] = True
    asks_of_reference: ClassVar[str] = "whole distributions at every token"

    beta: float = Field(0.1, gt=0)
    variant: Literal[1, 2] = 2
    a: float = Field(0.5, ge=0)


class OTPOConfig(TermConfig):
    """DPO with tokens weighted by transport between the two responses, arXiv 2505.18720.

    Attributes:
        epsilon: weight of the plan's entropy, in units of the largest cost.
        mass_penalty: weight of the divergences of the plan's marginals from one a token.
    """

    needs_pairs: ClassVar[bool] = True

    beta: float = Field(0.1, gt=0)
    epsilon: float = Field(0.1, gt=0)
    mass_penalty: float = Field(0.2, gt=0)


class EMOConfig(TermConfig):
    """Earth mover's distance to the label beside its likelihood, arXiv 2310.04691.

    Attributes:
        cap: largest factor of the distance; null for none.
        embedding: the reference's, whose cosines are the cost.
        gradient_share: as of the terms that are added to another one, for `dpo+emo`.
        gradient_share_every: steps between two measurements of the norms.
    """

    cap: float | None = Field(None, gt=0)
    embedding: Literal["input", "output"] = "output"
    gradient_share: float | None = Field(None, gt=0)
    gradient_share_every: int = Field(10, ge=1)
