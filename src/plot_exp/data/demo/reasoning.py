"""Reasoning: the conclusion that follows from a rule and an observation, against another."""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference, in_a_circle

Move = Literal["rises", "falls", "stays level"]
MOVES: tuple[Move, ...] = ("rises", "stays level", "falls")
OPPOSITE: dict[Move, Move] = {
    "rises": "falls",
    "falls": "rises",
    "stays level": "stays level",
}


class Inference(NamedTuple):
    """A rule, an observation, what follows from both and what does not."""

    rule: str
    observation: str
    conclusion: str
    wrong_conclusion: str


# Two quantities, and whether the second moves with the first or against it.
RELATIONS: tuple[tuple[str, str, bool], ...] = (
    ("the income", "the spending", True),
    ("the demand", "the price", True),
    ("the traffic", "the noise", True),
    ("the altitude", "the temperature", False),
    ("the supply", "the cost", False),
    ("the speed", "the travel time", False),
)


def _inferences() -> tuple[Inference, ...]:
    wrong_move = dict(in_a_circle(MOVES))
    found = []
    for cause, effect, together in RELATIONS:
        rule = f"{effect} moves {'with' if together else 'against'} {cause}"
        for move in MOVES:
            follows = move if together else OPPOSITE[move]
            found.append(
                Inference(
                    rule,
                    f"{cause} {move}",
                    f"{effect} {follows}",
                    f"{effect} {wrong_move[follows]}",
                )
            )
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
    conclusions = (fact.conclusion, fact.wrong_conclusion)
    chosen, rejected = ANSWERS.fill_twice(
        part, rng, "conclusion", conclusions, observation=fact.observation
    )
    return Draft(prompt, chosen, rejected)


REASONING = SubPreference(
    "reasoning",
    INFERENCES,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
