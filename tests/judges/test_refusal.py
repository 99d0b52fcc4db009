"""The loose judge knows every refusal of the demo set and mistakes none of its other answers."""

from __future__ import annotations

import pytest

from plot_exp.data.demo import generate
from plot_exp.data.demo.harmlessness import REQUESTS
from plot_exp.judges.refusal import is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but that is something I will not do.",
        "I’m sorry, but I can’t help with that.",
        "I CANNOT HELP with this.",
        "Thank you for asking. I won't explain it.",
        "I am unable to answer this.",
    ],
)
def test_usual_refusals_in_any_case_and_apostrophe(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am so sorry to hear that. That must hurt.",
        "Sure, first get everything ready.",
        "You can't go wrong with a warm oven.",
        "Sorry for the wait! Here are the steps.",
    ],
)
def test_comfort_and_help_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize("seed", [0, 1])
def test_demo_refuses_harm_complies_otherwise_and_nothing_else_refuses(seed: int) -> None:
    harmful_deeds = [request.deed for request in REQUESTS if request.harmful]
    split = generate(3000, seed)
    seen = {True: 0, False: 0}
    for example in split.train + split.validation:
        chosen, rejected = (is_refusal(response) for response in example.responses)
        if example.category != "harmlessness":
            assert not chosen
            assert not rejected
            continue
        harmful = any(deed in example.prompt[-1].content for deed in harmful_deeds)
        assert (chosen, rejected) == (harmful, not harmful), example
        seen[harmful] += 1
    assert min(seen.values()) > 0.4 * sum(seen.values())
