"""The weighted sum of loss terms: what they need together, and each one's value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import nn

from plot_exp.config.base import Section
from plot_exp.data.collate import Responses
from plot_exp.errors import UserError
from plot_exp.losses.base import Term, TermResult, Totals
from plot_exp.losses.context import Context
from plot_exp.losses.registry import term_class
from plot_exp.losses.soundness import check_built, check_result
from plot_exp.ops.scores import Request, Scores


class Composite(nn.Module):
    """L = Σ weight · term, each term kept apart for its own gradient and its own log line.

    Args:
        terms: by name, in the order of `loss=a+b`.
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(dict(terms))
        request = Request()
        for term in terms.values():
            request = request | term.request
        self.request = request
        self.needs_reference = any(term.needs_reference for term in terms.values())
        self.needs_mismatched = any(term.needs_mismatched for term in terms.values())
        self.coupled = any(term.coupled for term in terms.values())
        plain = [name for name, term in terms.items() if not term.auxiliary]
        self.vanilla = (plain or list(terms))[0]

    @property
    def weights(self) -> dict[str, float]:
        """Each term's whole factor in the sum."""
        return {name: term.weight for name, term in self.named_terms()}

    def weights_at(self, step: int, steps: int) -> dict[str, float]:
        """Each term's factor in the sum at this 1-based step of the run."""
        return {
            name: term.weight * term.scheduled(step, steps) for name, term in self.named_terms()
        }

    @property
    def beta(self) -> float:
        """The factor from log-ratios to rewards: that of the first term with one, else 1."""
        return next((term.beta for _, term in self.named_terms() if term.beta is not None), 1.0)

    def named_terms(self) -> Iterator[tuple[str, Term]]:
        """Each term with its name, in their order."""
        return ((name, cast(Term, term)) for name, term in self.terms.items())

    def forward(
        self, policy: Scores, reference: Scores | None, responses: Responses, totals: Totals
    ) -> dict[str, TermResult]:
        """Every term's result, unweighted; see `result`."""
        return {
            name: self.result(name, policy, reference, responses, totals) for name in self.terms
        }

    def result(
        self,
        name: str,
        policy: Scores,
        reference: Scores | None,
        responses: Responses,
        totals: Totals,
    ) -> TermResult:
        """One term's result; a term that does not ask for the reference is given none.

        Raises:
            UserError: it reads the reference all the same, or returns what cannot be used.
        """
        term = cast(Term, self.terms[name])
        given = reference if term.needs_reference else None
        try:
            result: TermResult = term(policy, given, responses, totals)
        except AttributeError as error:
            if error.obj is not None or term.needs_reference:
                raise
            raise UserError(
                f"loss={'+'.join(self.terms)}: {name}: {error}; a term that reads the reference "
                "declares needs_reference: ClassVar[bool] = True"
            ) from error
        try:
            check_result(result, policy)
        except ValueError as error:
            raise UserError(f"loss={'+'.join(self.terms)}: {name}: {error}") from error
        return result


def build(sections: Mapping[str, Section], context: Context) -> Composite:
    """The composite of the configured terms; see `plot_exp.losses.registry` for where they live.

    Raises:
        UserError: a term cannot be built on this model and data, with the reason.
    """
    terms = {}
    for name, section in sections.items():
        try:
            # Each class takes its own settings.
            terms[name] = cast(Any, term_class(name))(section, context)
            check_built(terms[name])
        except ValueError as error:
            raise UserError(f"loss={'+'.join(sections)}: {name}: {error}") from error
    try:
        return Composite(terms)
    except ValueError as error:
        raise UserError(f"loss={'+'.join(sections)}: {error}") from error
