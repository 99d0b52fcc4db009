"""Every term in every layout, coupling and company: one step of a small model."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from plot_exp.config.combinations import RULES
from plot_exp.config.composition import compose
from plot_exp.config.losses import TERMS, term_sections
from plot_exp.config.schema import Config
from plot_exp.data.packing import Layout
from plot_exp.errors import UserError
from plot_exp.losses import registry
from plot_exp.losses.composite import build

from coupling_runs import Run, examples, facts, unpaired_examples

PAIRS = list(itertools.combinations(TERMS, 2))
WITHOUT_PAIRS = [name for name, settings in TERMS.items() if not settings.needs_pairs]
LAYOUTS = [Layout("shared"), Layout("packed", capacity=40)]


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TERMS)
def test_the_pages_name_every_term(name: str) -> None:
    objectives, choosing, readme = (
        (ROOT / page).read_text(encoding="utf-8")
        for page in ("docs/objectives.md", "docs/choosing.md", "README.md")
    )
    assert f"\n| `{name}` |" in objectives, "a row of what it needs"
    assert re.search(rf"\n\*\*.*`{name}`.*\*\*", objectives), "a paragraph of its own"
    assert f"`{name}`" in choosing
    assert f"`{name}`" in readme


@pytest.fixture(scope="module")
def base() -> Config:
    return compose()


def with_loss(config: Config, *names: str) -> Config:
    return config.model_copy(update={"loss": term_sections({name: {} for name in names})})


def test_every_pair_of_terms_is_let_through_by_every_rule(base: Config) -> None:
    for pair in PAIRS:
        config = with_loss(base, *pair)
        assert [problem for rule in RULES for problem in rule(config)] == [], pair


def test_with_a_cached_reference_each_pair_is_let_through_or_told_why(base: Config) -> None:
    cached = base.model_copy(update={"reference_form": "cached"})
    for pair in PAIRS:
        config = with_loss(cached, *pair)
        problems = [problem for rule in RULES for problem in rule(config)]
        asking = {"kto", "tdpo"} & set(pair)
        assert len(problems) == len(asking), pair
        for problem in problems:
            assert f"loss={'+'.join(pair)}" in problem
            assert "leave reference_form out" in problem


@pytest.mark.slow
def test_the_gradient_of_every_pair_is_the_sum_of_the_two() -> None:
    alone = {name: Run(name).step([3, 3])[1] for name in TERMS}
    for first, second in PAIRS:
        run = Run(f"{first}+{second}")
        outcome, together = run.step([3, 3])
        assert all(result.loss.isfinite() for result in outcome.terms.values())
        for found, one, other in zip(together, alone[first], alone[second], strict=True):
            # The architecture's norms run in fp32.
            size = 1e-5 * max(float(one.abs().max()), float(other.abs().max()), 1e-3)
            torch.testing.assert_close(found, one + other, rtol=1e-4, atol=size)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", TERMS)
def test_a_layout_changes_no_value_and_no_gradient(name: str, layout: Layout) -> None:
    padded, gradients = Run(name).step([4, 2])
    laid_out, found = Run(name, layout=layout).step([4, 2])

    expected = padded.terms[name]
    torch.testing.assert_close(laid_out.terms[name].loss, expected.loss, rtol=1e-5, atol=1e-8)
    biggest = max(float(gradient.abs().max()) for gradient in gradients)
    assert biggest > 1e-7
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * biggest)


@pytest.mark.parametrize("name", WITHOUT_PAIRS)
def test_labelled_responses_without_pairs_are_enough(name: str) -> None:
    """In parts as in one batch, and with another gradient where the labels change."""
    run = Run(name, data=unpaired_examples)
    whole, gradients = run.step([6])
    split, parts = run.step([2, 1, 3])

    torch.testing.assert_close(split.terms[name].loss, whole.terms[name].loss, rtol=1e-9, atol=0)
    torch.testing.assert_close(parts, gradients, rtol=1e-8, atol=1e-11)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-7


@pytest.mark.parametrize("mode", ["carried", "microbatch"])
@pytest.mark.parametrize("name", TERMS)
def test_every_coupling_gives_a_step(name: str, mode: str) -> None:
    """Of a term that is not coupled every mode is the exact one."""
    run = Run(name, data=examples)
    exact, gradients = run.step([2, 2, 2])
    outcome, found = run.step([2, 2, 2], mode=mode, carried=exact.parts)

    assert outcome.terms[name].loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in found)
    if not run.composite.coupled:
        torch.testing.assert_close(outcome.terms[name].loss, exact.terms[name].loss)
        torch.testing.assert_close(found, gradients, rtol=1e-9, atol=1e-12)


def test_two_terms_that_ask_for_the_labels_cost_in_two_embeddings_are_refused() -> None:
    settings = TERMS["emo"]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._registered, "other_emo", registry.term_class("emo"))
        with pytest.raises(UserError, match=r"loss=emo\+other_emo: .*different embeddings"):
            build({"emo": settings, "other_emo": settings}, facts())
