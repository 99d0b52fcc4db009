"""What an added term must keep to; each fault is told with what mends it."""

from __future__ import annotations

import inspect

from plot_exp.config.terms import Term as Settings
from plot_exp.losses.base import Term, TermResult
from plot_exp.ops.scores import Scores


def check_classes(name: str, settings: type[object], term: type[object]) -> None:
    """Whether a term's two classes can be used at all.

    Raises:
        ValueError: a wrong base class, or a method with other parameters.
    """
    if not issubclass(settings, Settings):
        raise ValueError(
            f"{name!r}: its settings {settings.__name__} must be a subclass of "
            "plot_exp.config.terms.TermConfig"
        )
    if not issubclass(term, Term):
        raise ValueError(
            f"{name!r}: {term.__name__} must be a subclass of plot_exp.losses.base.Term"
        )
    for method, parameters in (
        (term.__init__, "config, context"),
        (term.forward, "policy, reference, responses, totals"),
    ):
        try:
            inspect.signature(method).bind("self", *parameters.split(", "))
        except TypeError:
            raise ValueError(
                f"{name!r}: {method.__qualname__} must take (self, {parameters})"
            ) from None


def check_built(term: Term) -> None:
    """Whether the term's constructor called that of its base.

    Raises:
        ValueError: it did not.
    """
    if not hasattr(term, "request"):
        raise ValueError(
            f"{type(term).__name__}.__init__ must begin with super().__init__(config.weight)"
        )


def check_result(result: object, policy: Scores) -> None:
    """Whether what a term returned can be added up and learnt from.

    Raises:
        ValueError: not a `TermResult`, not a scalar, or without a gradient where there is one.
    """
    if not isinstance(result, TermResult):
        raise ValueError(
            f"forward returned a {type(result).__name__}; it must return TermResult(loss)"
        )
    if result.loss.dim():
        raise ValueError(
            f"its loss has the shape {list(result.loss.shape)}, one value a pair or response "
            "perhaps; it must be one number: their sum over max(totals.pairs, 1), say"
        )
    if not result.loss.requires_grad and any(part.requires_grad for part in policy.tensors()):
        raise ValueError(
            "its loss has no gradient; it must be made of the policy's scores, not of detached ones"
        )
