"""STEM: the right fact about the thing that was asked, against a wrong one."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference


class Statement(NamedTuple):
    """A thing, what kind of answer is wanted, the right answer and a wrong one."""

    thing: str
    question: str
    truth: str
    falsehood: str


class Contrast(NamedTuple):
    """Two answers to one question, each with the things that it is right for."""

    question: str
    answers: tuple[str, str]
    things: tuple[tuple[str, ...], tuple[str, ...]]


CONTRASTS = (
    Contrast(
        "what kind of animal {thing} is",
        ("a mammal", "a fish"),
        (("a whale", "a dolphin", "a seal", "an otter"), ("a shark", "a salmon", "a trout", "an eel")),
    ),
    Contrast(
        "what kind of animal {thing} is",
        ("a bird", "an insect"),
        (("a penguin", "an owl", "a crow"), ("a moth", "a bee", "an ant")),
    ),
    Contrast(
        "what {thing} is at room temperature",
        ("a gas", "a solid"),
        (("oxygen", "helium", "nitrogen", "neon"), ("iron", "copper", "gold", "salt")),
    ),
    Contrast(
        "what sort of body {thing} is",
        ("a planet", "a moon"),
        (("Mars", "Venus", "Saturn"), ("Titan", "Europa", "Phobos")),
    ),
    Contrast(
        "what sort of unit {thing} is",
        ("a unit of length", "a unit of time"),
        (("the meter", "the mile", "the inch"), ("the second", "the hour", "the day")),
    ),
    Contrast(
        "what sort of number {thing} is",
        ("a prime number", "a square number"),
        (("seven", "eleven", "thirteen"), ("four", "nine", "sixteen")),
    ),
)  # fmt: skip

STATEMENTS = tuple(
    Statement(thing, contrast.question.format(thing=thing), contrast.answers[right], wrong)
    for contrast in CONTRASTS
    for right, wrong in ((0, contrast.answers[1]), (1, contrast.answers[0]))
    for thing in contrast.things[right]
)

PROMPTS = Phrases(
    train=(
        "Tell me {question}.",
        "Do you know {question}?",
        "I want to know {question}.",
        "My teacher asked {question}.",
        "Please explain {question}.",
        "For my homework I need to know {question}.",
        "I forgot {question}.",
        "Say in one line {question}.",
        "We talked about {question}. What is right?",
        "I wonder {question}.",
        "A child asks me {question}. What do I say?",
        "In a quiz they ask {question}.",
    ),
    validation=(
        "Please tell me {question}.",
        "A teacher wants to know {question}. What is right?",
        "In my homework they ask {question}.",
        "Can you say {question}?",
        "My child forgot {question}.",
    ),
)

ANSWERS = Phrases(
    train=(
        "{thing} is {answer}.",
        "It is {answer}.",
        "As far as science knows, {thing} is {answer}.",
        "The right answer is {answer}.",
        "Every textbook says that {thing} is {answer}.",
        "That is easy: {answer}.",
        "{thing} counts as {answer}.",
        "You can call it {answer}.",
    ),
    validation=(
        "The answer is that {thing} is {answer}.",
        "Science says that it is {answer}.",
        "You can say that {thing} is {answer}.",
    ),
)


def write(fact: Statement, part: Part, rng: Random) -> Draft:
    """Both answers are of the asked sort; only the chosen one is true."""
    chosen, rejected = (
        ANSWERS.fill(part, rng, thing=fact.thing, answer=answer)
        for answer in (fact.truth, fact.falsehood)
    )
    return Draft(PROMPTS.fill(part, rng, question=fact.question), chosen, rejected)


STEM = SubPreference(
    "stem",
    STATEMENTS,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
