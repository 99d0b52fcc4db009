"""Reasoning: the conclusion that follows from a rule and an observation, against its opposite."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference


class Inference(NamedTuple):
    """A rule that holds in both directions, an observation, and what does and does not follow."""

    rule: str
    observation: str
    conclusion: str
    opposite: str


# Two states that go together and two that go together instead of them.
EQUIVALENCES: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("the switch is up", "the lamp is on"), ("the switch is down", "the lamp is off")),
    (("it is raining", "the path is wet"), ("it is sunny", "the path is dry")),
    (("the shop is open", "the sign is green"), ("the shop is closed", "the sign is red")),
    (("the tank is full", "the float is high"), ("the tank is empty", "the float is low")),
    (("the stove is hot", "the pot steams"), ("the stove is cold", "the pot is still")),
    (("the tide is in", "the boat floats"), ("the tide is out", "the boat sits on sand")),
    (("Max is home", "the car is here"), ("Max is away", "the car is gone")),
    (("it is day", "the owl sleeps"), ("it is night", "the owl hunts")),
    (("the box is heavy", "the scale sinks"), ("the box is light", "the scale rises")),
)


def _inferences() -> tuple[Inference, ...]:
    found = []
    for one, other in EQUIVALENCES:
        rule = f"{one[1]} exactly when {one[0]}"
        for here, there in ((one, other), (other, one)):
            for seen, asked in ((0, 1), (1, 0)):
                found.append(Inference(rule, here[seen], here[asked], there[asked]))
    return tuple(found)


INFERENCES = _inferences()

PROMPTS = Phrases(
    train=(
        "{rule}. Now {observation}. What follows?",
        "{rule}. I see that {observation}. What can I conclude?",
        "We know that {rule}. Today {observation}. What do you conclude?",
        "Suppose that {rule}. If {observation}, what else is true?",
        "Rule: {rule}. Fact: {observation}. Conclusion?",
        "{observation}, and {rule}. What follows from this?",
        "Here is a puzzle: {rule}. We learn that {observation}. So what?",
        "Given that {rule}, what follows when {observation}?",
        "{rule}. Mia tells me that {observation}. What else do I know?",
        "Say that {rule}. Right now {observation}. What must be true?",
    ),
    validation=(
        "We know that {rule}. I see that {observation}. What must be true?",
        "Fact: {observation}. Rule: {rule}. What follows?",
        "Here is a rule: {rule}. Mia tells me that {observation}. What do I conclude?",
        "Given that {rule}, and now {observation}, what else do I know?",
    ),
)

ANSWERS = Phrases(
    train=(
        "{conclusion}.",
        "So {conclusion}.",
        "It follows that {conclusion}.",
        "Then {conclusion}, by the rule.",
        "You can conclude that {conclusion}.",
        "That means that {conclusion}.",
        "Since {observation}, {conclusion}.",
        "By the rule, it must be that {conclusion}.",
    ),
    validation=(
        "So by the rule, {conclusion}.",
        "Then it must be that {conclusion}.",
        "It follows, since {observation}, that {conclusion}.",
    ),
)


def write(fact: Inference, part: Part, rng: Random) -> Draft:
    """Both answers draw a conclusion; only the chosen one follows."""
    prompt = PROMPTS.fill(part, rng, rule=fact.rule, observation=fact.observation)
    chosen, rejected = (
        ANSWERS.fill(part, rng, observation=fact.observation, conclusion=conclusion)
        for conclusion in (fact.conclusion, fact.opposite)
    )
    return Draft(prompt, chosen, rejected)


REASONING = SubPreference(
    "reasoning",
    INFERENCES,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
