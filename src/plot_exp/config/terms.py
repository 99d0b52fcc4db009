"""What is known of a loss term before any tensor exists."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from plot_exp.config.base import Section

Schedule = Literal["constant", "rising", "falling"]


class Term(Section):
    """The settings of one term, closed like every section.

    Attributes:
        needs_pairs: the term compares responses to one prompt, best against others.
        needs_rejected: the term needs rejected or undesirable responses, to any prompt.
        likelihood: beside its pairs, the term holds the likelihood of every chosen response,
            in a pair or not.
        asks_of_reference: what it reads of the reference beyond log-probabilities of the data;
            empty for nothing. A cached reference keeps no more than those.
        auxiliary: meant to be added to another term.
    """

    needs_pairs: ClassVar[bool] = False
    needs_rejected: ClassVar[bool] = False
    likelihood: ClassVar[bool] = False
    asks_of_reference: ClassVar[str] = ""
    auxiliary: ClassVar[bool] = False


class TermConfig(Term):
    """A term whose factor in the sum is called `weight`."""

    weight: float = Field(1.0, ge=0)
