"""STEM: the right fact about the thing that was asked, against a wrong one."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference, in_a_circle


class Statement(NamedTuple):
    """A thing, what kind of answer is wanted, the right answer and a wrong one."""

    thing: str
    question: str
    truth: str
    falsehood: str


class Table(NamedTuple):
    """A question and its answers, each with the things that it is right for."""

    question: str
    answers: dict[str, tuple[str, ...]]


TABLES = (
    Table(
        "what kind of animal {thing} is",
        {
            "a mammal": ("a whale", "a dolphin", "a bat"),
            "a fish": ("a shark", "a salmon", "an eel"),
            "a bird": ("a penguin", "an owl", "an ostrich"),
            "an insect": ("a moth", "a bee", "an ant"),
        },
    ),
    Table(
        "what {thing} is at room temperature",
        {
            "a gas": ("oxygen", "helium", "nitrogen"),
            "a solid": ("iron", "copper", "salt"),
            "a liquid": ("mercury", "water", "alcohol"),
        },
    ),
    Table(
        "what sort of body {thing} is",
        {
            "a planet": ("Mars", "Venus", "Saturn"),
            "a moon": ("Titan", "Europa", "Phobos"),
            "a star": ("Sirius", "Vega", "Rigel"),
        },
    ),
    Table(
        "what sort of quantity {thing} measures",
        {
            "length": ("the meter", "the mile", "the inch"),
            "time": ("the second", "the hour", "the day"),
            "mass": ("the gram", "the ton", "the ounce"),
        },
    ),
)

STATEMENTS = tuple(
    Statement(thing, table.question.format(thing=thing), truth, falsehood)
    for table in TABLES
    for truth, falsehood in in_a_circle(tuple(table.answers))
    for thing in table.answers[truth]
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
        "{thing}: {answer}.",
        "It is {answer}.",
        "As far as science knows, it is {answer}.",
        "The right answer is {answer}.",
        "Every textbook says {answer}.",
        "That is easy: {answer}.",
        "For {thing} it is {answer}.",
        "You can call it {answer}.",
        "With {thing}, the answer is {answer}.",
    ),
    validation=(
        "For {thing} the right answer is {answer}.",
        "Science says that it is {answer}.",
        "The answer: {answer}.",
    ),
)


def write(fact: Statement, part: Part, rng: Random) -> Draft:
    """Both answers are of the asked sort; only the chosen one is true."""
    answers = (fact.truth, fact.falsehood)
    chosen, rejected = ANSWERS.fill_twice(part, rng, "answer", answers, thing=fact.thing)
    return Draft(PROMPTS.fill(part, rng, question=fact.question), chosen, rejected)


STEM = SubPreference(
    "stem",
    STATEMENTS,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
